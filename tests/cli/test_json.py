"""What programs are told: one JSON value on standard output, whatever is said on standard error."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from distllm.cli.root import app
from distllm.store.migrate import revisions
from tests.cli.conftest import Done
from tests.cli.here import Here, serving
from tests.cli.test_help import commands
from tests.fakes.behaviour import REPEATS
from tests.fakes.server import FakeServer


def told(done: Done, code: int = 0) -> Any:
    """The one value."""
    assert done.code == code, done.err
    assert len(done.out.splitlines()) == 1
    return json.loads(done.out)


@pytest.fixture
def server(here: Here) -> Iterator[FakeServer]:
    """A worker that never retries."""
    here.files.papers(2)
    with serving(running := FakeServer()):
        here.files.use(running, max_retries=0)
        yield running


@pytest.mark.parametrize("command", [each for each in commands() if each not in {("export",), ("db",)}], ids=" ".join)
def test_every_command_that_prints_facts_tells_them_to_programs_too(command: tuple[str, ...]) -> None:
    found: Any = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    assert any("--json" in parameter.opts for parameter in found.params)


def test_a_job_that_runs_tells_at_its_end_what_status_would(here: Here, server: FakeServer) -> None:
    server.behave(REPEATS)
    facts = told(here.run("submit", "papers", "--prompt", "What?", "--json"), 3)
    assert facts == told(here.run("status", "1", "--json"))
    expected = {"job_id": 1, "state": "failed", "total": 2, "done": 1, "failed": 1, "pending": 0, "not_read": []}
    assert facts | expected == facts
    assert facts["prompt_tokens"] > 0
    assert len(facts["last_failures"]) == 1


def test_a_job_goes_through_its_life_in_json(here: Here, server: FakeServer) -> None:
    server.behave(REPEATS)
    assert told(here.run("submit", "papers", "--prompt", "What?", "--detach", "--json")) == {"job_id": 1}
    paused = {"job_id": 1, "state": "paused", "in_flight": 0}
    assert told(here.run("pause", "1", "--json")) == paused | {"changed": True}
    assert told(here.run("pause", "1", "--json")) == paused | {"changed": False}
    assert told(here.run("resume", "--json")) == []
    [facts] = told(here.run("resume", "1", "--json"), 3)
    assert (facts["state"], facts["done"], facts["failed"]) == ("failed", 1, 1)
    assert told(here.run("retry", "1", "--truncated", "--json"))["again"] == 0
    again = {"job_id": 1, "again": 1, "left": 0, "coordinator": None}
    assert told(here.run("retry", "1", "--json")) == again
    [facts] = told(here.run("resume", "--json"))
    assert (facts["state"], facts["done"]) == ("completed", 2)
    assert told(here.run("resume", "1", "--json")) == [facts]
    assert told(here.run("submit", "papers", "--prompt", "Why?", "--detach", "--json")) == {"job_id": 2}
    cancelled = {"job_id": 2, "state": "cancelled", "done": 0, "failed": 0, "cancelled": 2}
    assert told(here.run("cancel", "2", "--json")) == cancelled | {"changed": True}
    assert told(here.run("cancel", "2", "--json")) == cancelled | {"changed": False}


def test_care_of_the_database_in_json(here: Here) -> None:
    path = str(here.files.database)
    assert told(here.run("db", "path", "--json")) == {"path": path, "exists": False}
    here.files.database.touch()
    assert told(here.run("db", "path", "--json")) == {"path": path, "exists": True}
    newest = {"path": path, "schema": revisions()[-1]}
    assert told(here.run("db", "upgrade", "--json")) == newest | {"before": None, "changed": True}
    assert told(here.run("db", "upgrade", "--json")) == newest | {"before": revisions()[-1], "changed": False}
    copy = told(here.run("db", "backup", "copy.db", "--json"))
    assert copy == {
        "path": path,
        "copy": str(here.folder / "copy.db"),
        "bytes": (here.folder / "copy.db").stat().st_size,
    }


def test_workers_come_and_go_in_json(here: Here) -> None:
    added = told(here.run("workers", "add", "127.0.0.1:9", "--type", "openai", "--id", "studio", "--json"))
    worker = {"id": "studio", "type": "openai", "host": "127.0.0.1", "port": 9}
    assert added == {"file": "workers.json", "added": worker}
    assert json.loads((here.folder / "workers.json").read_text())["workers"] == [worker]
    assert told(here.run("workers", "remove", "studio", "--json")) == {"file": "workers.json", "removed": "studio"}


@pytest.mark.parametrize(
    "arguments", [["pause", "7"], ["cancel", "7"], ["retry", "7"], ["resume", "7"], ["db", "backup", "no/copy.db"]]
)
def test_a_mistake_prints_nothing_where_a_value_is_expected(
    here: Here, server: FakeServer, arguments: list[str]
) -> None:
    here.run("submit", "papers", "--prompt", "What?", "--detach")
    done = here.run(*arguments, "--json")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
