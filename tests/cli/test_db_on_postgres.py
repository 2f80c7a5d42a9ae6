"""Care of a database on PostgreSQL, as a person does it."""

import asyncio
import json
import os
from typing import Any

import asyncpg
import pytest

from distllm.domain.places import PostgresUrl
from distllm.store.hearts import Heart
from distllm.store.migrate import revisions
from distllm.store.postgres.heart import open_heart
from tests.cli.conftest import Cli, Done
from tests.cli.here import Here, one_line, serving
from tests.fakes.behaviour import CRASHED, HELD
from tests.fakes.server import FakeServer


def ask(url: str, *statements: str) -> list[list[tuple[Any, ...]]]:
    """The rows of statements, run one after another."""

    async def work() -> list[list[tuple[Any, ...]]]:
        connection = await asyncpg.connect(url)
        try:
            return [list(map(tuple, await connection.fetch(statement))) for statement in statements]
        finally:
            await connection.close()

    return asyncio.run(work())


class There:
    """Runs commands on a database of a server."""

    def __init__(self, here: Here, url: str) -> None:
        self.here = here
        self.url = url

    def run(self, *arguments: str) -> Done:
        """Run a command to its end."""
        return self.here.run("--db", self.url, *arguments)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return ask(self.url, statement)[0]


@pytest.fixture
def there(here: Here, postgres_url: str) -> There:
    """A new database."""
    return There(here, postgres_url)


@pytest.fixture
def answered(there: There) -> There:
    """A job of three answers that ended forty days ago, one of them at the second attempt."""
    there.here.files.papers(3)
    with serving(server := FakeServer()):
        there.here.files.use(server)
        server.behave(CRASHED)
        done = there.run("submit", "papers", "--prompt", "What?")
    assert done.code == 0, done.err
    ask(there.url, "UPDATE jobs SET finished_at = finished_at - 40 * 86400")
    return there


def test_the_path_is_the_url_without_its_password(here: Here) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/papers"
    done = here.run("--db", url, "db", "path")
    assert (done.code, done.out, done.err) == (0, "postgresql://me@127.0.0.1:1/papers\n", "")
    facts = json.loads(here.run("--db", url, "db", "path", "--json").out)
    assert facts == {"path": "postgresql://me@127.0.0.1:1/papers", "exists": None}


def test_an_upgrade_makes_what_is_missing_and_says_so(here: Here, empty_postgres_url: str) -> None:
    newest = revisions()[-1]
    there = There(here, empty_postgres_url)
    assert there.run("db", "check").code == 1
    assert there.run("db", "upgrade").out == f"{there.url} was made with schema {newest}.\n"
    assert there.run("db", "upgrade").out == f"{there.url} has the newest schema ({newest}) already.\n"
    facts = json.loads(there.run("db", "upgrade", "--json").out)
    assert (facts["path"], facts["before"], facts["changed"]) == (there.url, newest, False)
    assert there.run("db", "check").code == 0


def test_a_copy_is_the_server_s_own_to_make(there: There) -> None:
    done = there.run("db", "backup", "my copy.dump")
    assert done.code == 2
    assert f"pg_dump --format=custom --file='my copy.dump' {there.url}" in one_line(done)


def test_a_check_of_a_sound_database(answered: There) -> None:
    done = answered.run("db", "check")
    assert done.code == 0, done.out
    lines = [line.split(maxsplit=2) for line in done.out.splitlines()]
    assert {level for level, *_ in lines} == {"ok"}
    assert [about for _, about, _ in lines] == [
        *("PostgreSQL", "size", "schema", "views", "leases", "counters", "prompts")
    ]
    assert json.loads(answered.run("db", "check", "--json").out)["ok"] is True


def test_a_fault_is_found_repaired_and_gone(answered: There) -> None:
    ask(answered.url, "UPDATE job_counters SET done = 0, pending = 3")
    found = answered.run("db", "check")
    assert found.code == 1
    assert "of job 1: pending 3" in found.out
    mended = answered.run("db", "check", "--repair")
    assert mended.code == 0, mended.out + mended.err
    assert "repaired: 0 leases given back, 1 counter counted anew" in mended.out
    assert answered.ask("SELECT sum(done), sum(pending) FROM job_counters") == [(3, 0)]
    assert "nothing was to be repaired" in answered.run("db", "check", "--repair").out


async def test_while_a_coordinator_is_live_nothing_is_repaired(cli: Cli, postgres_url: str) -> None:
    heart: Heart = await open_heart(PostgresUrl(postgres_url), None, ())
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("UPDATE coordinators SET alive_until = alive_until + 100")
        await connection.execute(
            "INSERT INTO jobs (name, request_hash, model, params, created_at, submitted_at, finished_at)"
            " VALUES ('a', '', 'm', '{}', 0, 0, NULL)"
        )
        found = await cli.run("--db", postgres_url, "db", "check")
        assert "job 1 ended too early or too late" in found.out
        assert f"process {os.getpid()} works this database and holds 0" in found.out
        refused = await cli.run("--db", postgres_url, "db", "check", "--repair")
        assert refused.code == 1
        assert f"process {os.getpid()} works {postgres_url}: stop it (Ctrl-C there), then repair" in one_line(refused)
        assert await connection.fetchval("SELECT count(*) FROM jobs WHERE finished_at IS NULL") == 1
    finally:
        await heart.close()
        await connection.close()


def test_answers_stay_unless_jobs_are_named(answered: There) -> None:
    dry = answered.run("db", "prune", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.splitlines()[0] == "Would be removed: 1 attempt."
    done = answered.run("db", "prune", "--vacuum")
    assert done.out.splitlines()[0] == "Removed: 1 attempt."
    assert "its server uses again" in done.out
    assert answered.ask("SELECT attempts FROM answers") == [(1,), (1,), (1,)]
    assert answered.run("db", "prune").out.splitlines()[0] == "Nothing is older than 30 days and no longer needed."
    assert answered.run("db", "check").code == 0


def test_a_dry_run_and_the_removal_tell_programs_the_same(answered: There) -> None:
    dry = json.loads(answered.run("db", "prune", "--jobs", "--dry-run", "--json").out)
    facts = json.loads(answered.run("db", "prune", "--jobs", "--yes", "--json").out)
    assert facts["removed"] == dry["removed"]
    assert [facts["removed"][kind] for kind in ("jobs", "prompts", "results", "documents", "readings")] == [
        1,
        3,
        3,
        3,
        3,
    ]
    assert (facts["free_bytes"], facts["vacuumed"]) == (None, False)
    assert answered.ask("SELECT count(*) FROM prompts") == [(0,)]
    assert answered.run("db", "check").code == 0


async def test_beside_a_coordinator_jobs_go(cli: Cli, postgres_url: str) -> None:
    cli.papers(2)
    place = ("--db", postgres_url)
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run(*place, "submit", "papers", "--prompt", "What?")
        assert done.code == 0, done.err
        await asyncio.to_thread(ask, postgres_url, "UPDATE jobs SET finished_at = finished_at - 40 * 86400")
        server.behave(HELD)
        working = await cli.start(*place, "submit", "papers", "--prompt", "Why?", "--prompt", "How?")
        await server.until(lambda: len(server.requests) == 3, 30)
        done = await cli.run(*place, "db", "prune", "--jobs", "--yes")
        # The documents are needed by the other job.
        assert done.out.splitlines()[0] == "Removed: 1 job, 2 prompts, 2 answers, 2 attempts."
        server.release()
        assert (await cli.finish(working)).code == 0
    [left] = await asyncio.to_thread(ask, postgres_url, "SELECT job_id, state, done FROM job_progress")
    assert left == [(2, "completed", 4)]
    assert (await cli.run(*place, "db", "check")).code == 0
