"""How often papers were read is told of each job, and how fast each worker reads: to people and to programs."""

import json

import pytest

from distllm.domain.models import Rates
from distllm.store.fleet import learn
from distllm.store.sqlite import SqliteTx
from tests.cli.conftest import Cli
from tests.cli.here import Here, serving
from tests.cli.test_narrow_tables import lines_of
from tests.fakes.server import FakeServer

THREE = ("--prompt", "What is found?", "--prompt", "How sure is it?", "--prompt", "What is left out?")
ONCE = "x reading each document once"


def saved(here: Here, job: int) -> dict[str, float]:
    """What a job tells programs of its reading."""
    found: dict[str, float] = json.loads(here.run("status", str(job), "--json").out)["reading"]
    return found


def test_the_end_and_the_status_of_a_job_say_how_often_its_papers_were_read(here: Here) -> None:
    here.files.papers(2)
    with serving(server := FakeServer()):
        here.files.use(server)
        done = here.run("submit", "papers", *THREE)
        status = here.run("status", "1")
        facts = saved(here, 1)
        fresh = json.loads(here.run("submit", "papers", *THREE, "--fresh", "--json").out)
    assert done.code == 0, done.err
    read = next(line for line in done.out.splitlines() if line.startswith("  read: "))
    line = next(line for line in status.out.splitlines() if line.startswith("  read "))
    assert read.removeprefix("  read: ") == line.split(maxsplit=1)[1]
    assert ONCE in line
    assert facts["ratio"] == pytest.approx(facts["read_tokens"] / facts["least_tokens"], abs=1e-4)
    assert 0.9 < facts["ratio"] < 1.1
    assert facts["untold_answers"] == 0
    asked = sum(seen.prompt_tokens for seen in server.requests[:6])
    assert facts["read_tokens"] + facts["cached_tokens"] == asked
    # The second job finds the papers cached, and so reads less than once.
    assert fresh["reading"]["read_tokens"] < facts["read_tokens"]
    assert fresh["reading"]["ratio"] < 1
    assert "some was cached before" in here.run("status", "2").out


def test_a_server_that_does_not_tell_what_was_cached_is_said_not_to(here: Here) -> None:
    here.files.papers(1)
    with serving(server := FakeServer(kind="ollama", loaded=("fake-model",))):
        here.files.use(server)
        path = here.folder / "workers.json"
        path.write_text(path.read_text().replace('"openai"', '"ollama"'))
        done = here.run("submit", "papers", *THREE)
    assert done.code == 0, done.err
    assert "read: not known: its server does not tell what it found cached" in done.out
    assert ONCE not in here.run("status", "1").out
    assert saved(here, 1) == {
        "read_tokens": 0,
        "cached_tokens": 0,
        "least_tokens": 0,
        "ratio": None,
        "untold_answers": 3,
    }


def test_of_a_job_without_answers_nothing_is_said(here: Here) -> None:
    here.files.papers(1)
    with serving(server := FakeServer()):
        here.files.use(server)
        here.run("submit", "papers", *THREE, "--detach")
    assert json.loads(here.run("status", "1", "--json").out)["reading"] is None
    assert "\n  read " not in here.run("status", "1").out


async def test_what_was_saved_fits_a_narrow_terminal(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", "papers", *THREE)
    for columns in (40, 80):
        lines = await lines_of(cli, "status", "1", columns=columns)
        assert max(map(len, lines)) <= columns
        assert ONCE in " ".join(" ".join(lines).split())


def learnt(here: Here, rates: Rates) -> None:
    """Let the only worker have shown these rates."""
    import sqlite3

    connection = sqlite3.connect(here.files.database, isolation_level=None)
    learn(SqliteTx(connection), 1, "fake-model", rates, 0.0)
    connection.close()


def test_the_list_and_a_check_tell_how_fast_a_worker_is_and_how_long_its_model_loads(here: Here) -> None:
    here.files.papers(1)
    with serving(server := FakeServer()):
        here.files.use(server)
        assert "tokens a second" not in here.run("workers", "check").out
        assert here.run("submit", "papers", "--prompt", "What is found?").code == 0
        learnt(here, Rates(1234.0, 56.0))
        assert "load" not in here.run("workers", "list").out
        assert "reads 1,234 and writes 56 tokens a second, as measured\n" in here.run("workers", "check").out
        learnt(here, Rates(1234.0, 56.0, 12.4))
        told = here.run("workers", "list")
        checked = here.run("workers", "check")
        [listed] = json.loads(here.run("workers", "list", "--json").out)
        [now] = json.loads(here.run("workers", "check", "--json").out)
    row = next(line for line in told.out.splitlines() if "│ w0" in line)
    assert [cell.strip() for cell in row.split("│")[8:12]] == ["1,234", "56", "1", "12 s"]
    assert "tokens a second, as measured; took 12 s to load" in checked.out
    measured = {"prefill_rate": 1234.0, "decode_rate": 56.0, "load_seconds": 12.4}
    assert {name: listed[name] for name in measured} == measured
    assert {name: now[name] for name in measured} == measured


def test_what_was_measured_under_another_name_of_a_model_is_told_too(here: Here) -> None:
    here.files.papers(1)
    with serving(server := FakeServer()):
        here.files.use(server)
        assert here.run("submit", "papers", "--prompt", "What is found?").code == 0
        learnt(here, Rates(1234.0, 56.0))
        path = here.folder / "workers.json"
        settings = json.loads(path.read_text())
        settings["workers"][0]["model"] = "reader"
        path.write_text(json.dumps(settings))
        [apart] = json.loads(here.run("workers", "list", "--json").out)
        settings["models"] = {"fake": ["reader", "fake-model"]}
        path.write_text(json.dumps(settings))
        [same] = json.loads(here.run("workers", "list", "--json").out)
    assert (apart["decode_rate"], same["decode_rate"]) == (None, 56.0)
