"""Making a database smaller, as a person does it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.here import Here, one_line, serving
from tests.cli.terminal import on_terminal, plain
from tests.fakes.behaviour import CRASHED, HELD
from tests.fakes.server import FakeServer


def age(path: Path, days: int = 40) -> None:
    """Let all jobs have ended that long ago."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET finished_at = finished_at - ? * 86400", (days,))


@pytest.fixture
def answered(here: Here) -> Here:
    """A job of three answers that ended forty days ago, one of them at the second attempt."""
    here.files.papers(3)
    with serving(server := FakeServer()):
        here.files.use(server)
        server.behave(CRASHED)
        done = here.run("submit", "papers", "--prompt", "What?")
    assert done.code == 0, done.err
    age(here.files.database)
    return here


def test_answers_stay_unless_jobs_are_named(answered: Here) -> None:
    assert [row[0] for row in answered.files.rows("SELECT attempts FROM answers ORDER BY 1")] == [1, 1, 2]
    dry = answered.run("db", "prune", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.splitlines()[0] == "Would be removed: 1 attempt."
    done = answered.run("db", "prune")
    assert done.out.splitlines()[0] == "Removed: 1 attempt."
    assert answered.files.rows("SELECT attempts FROM answers") == [(1,), (1,), (1,)]
    again = answered.run("db", "prune")
    assert again.out.splitlines()[0] == "Nothing is older than 30 days and no longer needed."
    assert answered.run("db", "check").code == 0


def test_a_younger_job_is_left_alone(answered: Here) -> None:
    done = answered.run("db", "prune", "--older-than", "41", "--jobs", "--yes")
    assert (done.code, done.out.splitlines()[0]) == (0, "Nothing is older than 41 days and no longer needed.")
    assert answered.run("db", "prune", "--older-than", "0").code == 2


def test_jobs_are_not_removed_where_nobody_can_be_asked(answered: Here) -> None:
    refused = answered.run("db", "prune", "--jobs")
    assert refused.code == 2
    assert "--yes" in one_line(refused)
    assert answered.files.rows("SELECT count(*) FROM answers") == [(3,)]


def test_a_dry_run_and_the_removal_tell_programs_the_same(answered: Here) -> None:
    dry = json.loads(answered.run("db", "prune", "--jobs", "--dry-run", "--json").out)
    assert answered.files.rows("SELECT count(*) FROM answers") == [(3,)]
    done = answered.run("db", "prune", "--jobs", "--yes", "--json")
    facts = json.loads(done.out)
    assert facts["removed"] == dry["removed"]
    assert facts["removed"] | {"attempts": 4, "worker_metrics": 0} == facts["removed"]
    assert [facts["removed"][kind] for kind in ("jobs", "prompts", "results", "documents")] == [1, 3, 3, 3]
    assert (dry["dry_run"], facts["dry_run"]) == (True, False)
    assert facts["jobs"] == dry["jobs"] == [1]
    assert answered.run("status", "--json").out == "[]\n"
    assert answered.run("db", "check").code == 0


def test_a_file_shrinks_when_asked_to(answered: Here) -> None:
    with closing(sqlite3.connect("distllm.db")) as connection, connection:
        connection.execute("UPDATE documents SET text = hex(randomblob(500000))")
    before = answered.files.database.stat().st_size
    told = answered.run("db", "prune", "--jobs", "--yes").out
    assert "of that free for what comes (--vacuum gives it back to the disk)" in told
    assert answered.files.database.stat().st_size == before
    facts = json.loads(answered.run("db", "prune", "--vacuum", "--json").out)
    assert (facts["vacuumed"], facts["free_bytes"]) == (True, 0)
    assert facts["file_bytes"] == answered.files.database.stat().st_size < before / 5
    assert answered.run("db", "check").code == 0


def test_a_reader_only_delays_the_shrinking_of_the_file(answered: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distllm.store.vacuum.WAIT_SECONDS", 0)
    with closing(sqlite3.connect("distllm.db")) as reader:
        cursor = reader.execute("SELECT id FROM prompts")
        cursor.fetchone()
        done = answered.run("db", "prune", "--vacuum")
        assert done.code == 0, done.err
        assert "until a program that reads it lets go of it" in done.out
        cursor.close()
    assert answered.run("db", "check").code == 0


def test_what_does_not_fit_the_disk_is_not_begun(answered: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    done = answered.run("db", "prune", "--vacuum")
    assert done.code == 1
    assert "make room" in one_line(done)
    assert answered.run("query", "select count(*) from answers", "--format", "csv").out.split() == ["count(*)", "3"]


async def test_a_person_is_asked_and_may_say_no(cli: Cli) -> None:
    cli.papers(2)
    async with FakeServer() as server:
        cli.use(server)
        assert (await cli.run("submit", "papers", "--prompt", "What?")).code == 0
    age(cli.database)
    for answer, code, left in (("n", 1, 2), ("y", 0, 0)):
        async with on_terminal(cli, "db", "prune", "--jobs") as terminal:
            await terminal.until("[y/N]")
            asked = " ".join(plain(terminal.text).split())
            assert "1 job that ended more than 30 days ago will go for good, with 2 prompts and 2 answers" in asked
            terminal.enter(answer)
            assert await terminal.process.wait() == code
        assert cli.rows("SELECT count(*) FROM results") == [(left,)]


async def test_beside_a_coordinator_jobs_go_and_the_file_is_not_shrunk(cli: Cli) -> None:
    cli.papers(2)
    async with FakeServer() as server:
        cli.use(server)
        assert (await cli.run("submit", "papers", "--prompt", "What?")).code == 0
        age(cli.database)
        server.behave(HELD)
        working = await cli.start("submit", "papers", "--prompt", "Why?", "--prompt", "How?")
        await server.until(lambda: len(server.requests) == 3, 30)
        refused = await cli.run("db", "prune", "--jobs", "--yes", "--vacuum")
        assert refused.code == 1
        assert f"process {working.pid} works distllm.db" in one_line(refused)
        assert cli.rows("SELECT count(*) FROM jobs") == [(2,)]
        done = await cli.run("db", "prune", "--jobs", "--yes")
        # The documents are needed by the other job.
        assert done.out.splitlines()[0] == "Removed: 1 job, 2 prompts, 2 answers, 2 attempts."
        server.release()
        assert (await cli.finish(working)).code == 0
    assert cli.rows("SELECT job_id, state, done FROM job_progress") == [(2, "completed", 4)]
    assert (await cli.run("db", "check")).code == 0
