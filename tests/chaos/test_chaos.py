"""Short campaigns, and long ones; the planted mistakes are noticed, and the same seed is the same plan."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.options import parse
from tests.chaos.plan import make_plan
from tests.chaos.plants import MISTAKES, plant
from tests.chaos.report import Report
from tests.chaos.servers import REPOSITORY

PROMISES = {
    "early-ack": "a lease is in the database before its prompt is sent",
    "fence": "only the newest lease ends a prompt",
    "reclaim-guard": "every lease has a live holder",
}


@pytest.mark.first
@pytest.mark.timeout(300)
async def test_sixteen_deaths_lose_nothing(tmp_path: Path) -> None:
    deaths = ("--seed", "3", "--kills", "8", "--edges", "8", "--faults", "kill,edges", "--apart", "2")
    work = ("--prompts", "150", "--papers", "15", "--questions", "4", "--in-flight", "10", "--answer-seconds", "0.05")
    options = parse([*deaths, *work])
    report = await Campaign(options, tmp_path, Report(options)).run()
    assert report.deaths["kill"] >= 8
    assert report.deaths["edge"] + report.missed == 8
    assert report.deaths["edge"] >= 6
    assert report.results == report.prompts >= 150
    assert report.calls["calls"] == report.prompts + report.calls["again after a death"] + report.calls["beside"]
    assert report.failed == report.stuck == 0


def test_the_same_seed_is_the_same_sequence_of_faults() -> None:
    plan = make_plan(parse(["--seed", "5", "--kills", "9", "--edges", "9"]))
    assert plan == make_plan(parse(["--seed", "5", "--kills", "9", "--edges", "9"]))
    assert plan != make_plan(parse(["--seed", "6", "--kills", "9", "--edges", "9"]))


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_every_mistake_has_its_place(mistake: str, tmp_path: Path) -> None:
    planted = plant(mistake, tmp_path)
    for change in MISTAKES[mistake].changes:
        compile((planted / "distllm" / change.file).read_text(), change.file, "exec")


def chaos(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mistake", sorted(PROMISES))
def test_a_planted_mistake_is_noticed(mistake: str, tmp_path: Path) -> None:
    work = ("--kills", "4", "--others", "3", "--in-flight", "10", "--answer-seconds", "0.2")
    ended = chaos("--plant", mistake, *work, "--folder", str(tmp_path))
    assert ended.returncode == 1, ended.stdout
    assert ended.stdout.splitlines()[-1].startswith(f"chaos: FAILED: {PROMISES[mistake]}"), ended.stdout


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_that_can_go_wrong(tmp_path: Path) -> None:
    ended = chaos("--kills", "5", "--edges", "12", "--others", "1", "--in-flight", "20", "--folder", str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "chaos: passed"


def test_help_shows_examples_and_a_wrong_fault_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    assert "--plant fence" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        parse(["--faults", "kill,rain"])
    assert ended.value.code == 2
    assert "no such fault: rain" in capsys.readouterr().err
