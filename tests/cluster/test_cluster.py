"""A short run, and a long one; and the judge of the calls, who must notice what was asked twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.servers import REPOSITORY
from tests.cluster.calls import Call, Calls, Fault
from tests.cluster.options import parse
from tests.cluster.report import Report
from tests.cluster.run import Run
from tests.postgres_server import OLDEST, programs
from tests.required import require


@pytest.mark.first
@pytest.mark.timeout(300)
async def test_coordinators_are_killed_frozen_and_cut_off_and_their_database_crashes(tmp_path: Path) -> None:
    require(programs(), f"PostgreSQL {OLDEST} or newer is not installed")
    report = Report(parse(["--prompts", "1500", "--stops", "1", "--seed", "1"]))
    await Run(report.options, tmp_path, report).run()
    assert report.states == {"done": 1500}
    assert report.faults["crash"] == 1
    assert report.faults["kill"] >= 1
    assert report.calls.causes["unexplained"] == 0


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_everything_that_can_go_wrong_with_several(tmp_path: Path) -> None:
    require(programs(), f"PostgreSQL {OLDEST} or newer is not installed")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "--folder", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "cluster: passed"


def judged(*calls: Call, faults: tuple[Fault, ...] = ()) -> Calls:
    """The last of these calls has given the answer."""
    made = Calls(list(calls), list(faults))
    made.judge({calls[-1].key: calls[-1].number})
    return made


def call(number: int, began: float, ended: float, how: str = "answered", life: str = "a") -> Call:
    return Call(number, "paper/question", number, life, began, ended, how)


def test_what_was_asked_twice_must_have_a_cause() -> None:
    assert judged(call(0, 1, 2)).causes == {}
    assert judged(call(0, 1, 2, "spoilt"), call(1, 3, 4)).causes == {"failed": 1}
    assert judged(call(0, 1, 9), call(1, 3, 4)).causes == {"hedged": 1}
    with pytest.raises(BrokenPromiseError, match="without a cause"):
        judged(call(0, 1, 2), call(1, 3, 4))
    with pytest.raises(BrokenPromiseError, match="without a cause"):
        judged(call(0, 1, 9), call(1, 3, 4, life="b"))


def test_a_fault_excuses_those_who_were_hit_by_it() -> None:
    twice = (call(0, 1, 2), call(1, 7, 8))
    assert judged(*twice, faults=(Fault("kill", "a", 3, 3),)).causes == {"answered at a kill": 1}
    assert judged(*twice, faults=(Fault("crash", None, 0, 1),)).causes == {"answered at a crash": 1}
    for fault in (Fault("kill", "b", 3, 3), Fault("kill", "a", 6, 6), Fault("crash", None, -4, -3)):
        with pytest.raises(BrokenPromiseError, match="without a cause"):
            judged(*twice, faults=(fault,))


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    assert "--seed 7" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(["--coordinators", "1"])
