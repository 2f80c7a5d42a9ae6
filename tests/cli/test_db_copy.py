"""A database that moves from its file to PostgreSQL, whatever happens meanwhile."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from distllm.domain.errors import DistllmError
from distllm.domain.places import PostgresUrl
from distllm.store.database import open_database
from distllm.store.fleet import register
from distllm.store.migrate import revisions, upgrade
from distllm.store.postgres.copying import copy_database
from distllm.store.tables import metadata
from tests.cli.conftest import Cli
from tests.cli.here import Here, one_line, serving
from tests.cli.test_kill import kill
from tests.fakes.server import FakeServer

TABLES = metadata.sorted_tables


def here_are(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a file, sorted, by table."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table.name: _sorted(connection.execute(f"SELECT {_columns(table.columns.keys())} FROM {table.name}"))
            for table in TABLES
        }


async def there_are(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a database of a server, sorted, by table."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table.name: _sorted(await connection.fetch(f"SELECT {_columns(table.columns.keys())} FROM {table.name}"))
            for table in TABLES
        }
    finally:
        await connection.close()


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _sorted(rows: Any) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, rows), key=repr)


async def ask(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def add_texts(path: Path, count: int, characters: int) -> None:
    """Documents that no job needs, so that copying takes some time."""
    rng = random.Random(7)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO documents (characters, created_at, text) VALUES (?, ?, ?)",
            [(characters, rng.random(), rng.randbytes(characters // 2).hex()) for _ in range(count)],
        )


async def test_a_job_that_was_killed_moves_and_the_copy_may_be_killed_too(cli: Cli, empty_postgres_url: str) -> None:
    cli.papers(10)
    async with FakeServer(slots=2, seconds_per_token=0.2) as server:
        cli.use(server)
        working = await cli.start("submit", "papers", "--prompt", "What is asked?", "--prompt", "What is found?")
        await cli.until(lambda: len(cli.rows("SELECT 1 FROM results")) >= 3)
        refused = await cli.run("db", "copy", empty_postgres_url)
        assert refused.code == 1
        assert f"process {working.pid} works distllm.db: stop it (Ctrl-C there), then copy" in one_line(refused)
        await kill(cli, working)
    assert cli.rows("SELECT 1 FROM prompts WHERE state = 'leased'")
    add_texts(cli.database, 100, 400_000)
    copying = await cli.start("db", "copy", empty_postgres_url)
    async with asyncio.timeout(30):
        while not await _has_begun(empty_postgres_url):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.005)
    copying.kill()
    await copying.wait()
    early = await cli.run("--db", empty_postgres_url, "status")
    assert early.code == 1
    assert "is not whole: a copy into it goes on or was broken off" in one_line(early)
    kept = await ask(empty_postgres_url, "SELECT count(*) FROM documents")
    assert 0 < kept < 110
    done = await cli.run("db", "copy", empty_postgres_url)
    assert done.code == 0, done.err
    assert "is a whole copy of distllm.db" in done.out
    assert await there_are(empty_postgres_url) == here_are(cli.database)
    again = await cli.run("db", "copy", empty_postgres_url, "--json")
    facts = json.loads(again.out)
    assert (facts["changed"], facts["rows"]["documents"], facts["rows"]["prompts"]) == (False, 110, 20)
    status = await cli.run("--db", empty_postgres_url, "status", "--json")
    assert json.loads(status.out) == json.loads((await cli.run("status", "--json")).out)


async def test_a_job_that_was_killed_ends_where_it_was_moved_to(cli: Cli, empty_postgres_url: str) -> None:
    cli.papers(6)
    async with FakeServer(slots=2, seconds_per_token=0.2) as server:
        cli.use(server)
        working = await cli.start("submit", "papers", "--prompt", "What is asked?", "--prompt", "What is found?")
        await cli.until(lambda: len(cli.rows("SELECT 1 FROM results")) >= 3)
        await kill(cli, working)
        before = cli.rows("SELECT prompt_id, attempt_id, answer FROM results ORDER BY prompt_id")
        assert cli.rows("SELECT 1 FROM prompts WHERE state = 'leased'")
        assert (await cli.run("db", "copy", empty_postgres_url)).code == 0
        server.seconds_per_token = 0.0
        done = await cli.run("--db", empty_postgres_url, "resume")
        assert done.code == 0, done.err
    results = (await there_are(empty_postgres_url))["results"]
    assert len(results) == 12
    kept = await ask(empty_postgres_url, f"SELECT count(*) FROM results WHERE attempt_id < {2 << 32}")
    assert kept == len(before)
    assert (await cli.run("--db", empty_postgres_url, "db", "check")).code == 0


async def _has_begun(url: str) -> bool:
    if not await ask(url, "SELECT to_regclass('documents') IS NOT NULL"):
        return False
    return bool(await ask(url, "SELECT count(*) > 0 FROM documents"))


@pytest.fixture
def answered(here: Here) -> Here:
    """A database with three answers."""
    here.files.papers(3)
    with serving(server := FakeServer()):
        here.files.use(server)
        done = here.run("submit", "papers", "--prompt", "What?")
    assert done.code == 0, done.err
    return here


def test_ids_go_on_after_those_that_were_given(answered: Here, empty_postgres_url: str) -> None:
    """Also after those of jobs that have gone: an id is never given twice."""
    with closing(sqlite3.connect("distllm.db")) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq = 70 WHERE name = 'jobs'")
    assert answered.run("db", "copy", empty_postgres_url).code == 0
    assert asyncio.run(ask(empty_postgres_url, "SELECT nextval('jobs_id_seq')")) == 71
    last = max(row[0] for row in answered.files.rows("SELECT id FROM documents"))
    assert asyncio.run(ask(empty_postgres_url, "SELECT nextval('documents_id_seq')")) == last + 1
    assert asyncio.run(ask(empty_postgres_url, "SELECT version_num FROM alembic_version")) == revisions()[-1]


def test_whatever_a_row_holds_is_the_same_there(here: Here, postgres_url: str) -> None:
    """A text of PostgreSQL cannot hold the one character of no width, nor what is no UTF-8."""
    upgrade(here.files.database)
    models = ["b", "B", "é", "a-b"]
    with closing(sqlite3.connect("distllm.db")) as connection, connection:
        connection.execute(
            "INSERT INTO documents (characters, created_at, text) VALUES (3, 0.1, 'a' || char(0) || 'b'),"
            " (2, -1e-300, cast(x'61ff' AS text)), (9223372036854775807, 1e300, ?)",
            ("🦉\t",),
        )
        connection.execute("INSERT INTO files VALUES (7, 'key', 'a', 'b', 3, 1.5, NULL)")
        connection.execute("INSERT INTO file_chunks VALUES (7, 0, x'0000ff'), (7, 1, x'')")
        connection.executemany(
            "INSERT INTO model_tokens VALUES (?, 1, 0.30000000000000004, '')", [(model,) for model in models]
        )
    done = here.run("db", "copy", postgres_url)
    assert done.code == 0, done.err
    there = asyncio.run(there_are(postgres_url))
    assert [row[4:] for row in there["documents"]] == [
        (3, None, 0.1, "a\ufffdb"),
        (2, None, -1e-300, "a\ufffd"),
        (2**63 - 1, None, 1e300, "🦉\t"),
    ]
    assert there["files"] == [(7, "key", "a", "b", 3, 1.5, None)]
    assert there["file_chunks"] == [(7, 0, b"\0\0\xff"), (7, 1, b"")]
    assert there["model_tokens"] == [(model, 1, 0.30000000000000004, "") for model in sorted(models, key=repr)]


def test_what_puts_answers_together_is_there_before_its_parts(here: Here, empty_postgres_url: str) -> None:
    upgrade(here.files.database)
    with closing(sqlite3.connect("distllm.db")) as connection, connection:
        connection.execute(
            "INSERT INTO jobs (id, name, request_hash, model, params, created_at, submitted_at)"
            " VALUES (1, 'long', '', 'm', '{}', 0, 0)"
        )
        connection.execute("INSERT INTO readings (id, model, prefix_hash, tokens, system) VALUES (1, 'm', '', 1, '')")
        for prompt_id, parent, level in ((1, 3, 0), (2, 3, 0), (3, 4, 1), (4, None, 2)):
            connection.execute(
                "INSERT INTO prompts (id, job_id, reading_id, parent_id, tokens, level, body)"
                " VALUES (?, 1, 1, ?, 1, ?, '')",
                (prompt_id, parent, level),
            )
    done = here.run("db", "copy", empty_postgres_url)
    assert done.code == 0, done.err
    assert asyncio.run(there_are(empty_postgres_url)) == here_are(here.files.database)


def test_a_target_that_holds_something_else_is_left_alone(answered: Here, postgres_url: str) -> None:
    async def begin() -> None:
        async with open_database(PostgresUrl(postgres_url)) as database:
            await database.write(lambda tx: register(tx, "elsewhere", 1, 1.0))

    asyncio.run(begin())
    refused = answered.run("db", "copy", postgres_url)
    assert refused.code == 1
    assert "holds other data than distllm.db: make an empty database with createdb" in one_line(refused)
    assert asyncio.run(ask(postgres_url, "SELECT count(*) FROM documents")) == 0


def test_a_source_that_was_written_in_between_is_noticed(answered: Here, empty_postgres_url: str) -> None:
    assert answered.run("db", "copy", empty_postgres_url).code == 0
    asyncio.run(ask(empty_postgres_url, f"UPDATE alembic_version SET version_num = 'copying {revisions()[-1]}'"))
    with closing(sqlite3.connect("distllm.db")) as connection, connection:
        connection.execute("UPDATE results SET answer = 'another' WHERE prompt_id = 1")
    refused = answered.run("db", "copy", empty_postgres_url)
    assert refused.code == 1
    assert "differs from distllm.db in results: one of them was written since the copy began" in one_line(refused)
    assert answered.run("--db", empty_postgres_url, "status").code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["db", "copy", "other.db"], 2, "db copy goes from a file to PostgreSQL"),
        (["--db", "postgresql://nowhere/x", "db", "copy", "postgresql://nowhere/x"], 2, "db copy goes from a file"),
        (["--db", "none.db", "db", "copy", "postgresql://nowhere/x"], 1, "there is no database none.db yet"),
        (["db", "copy", "postgresql://127.0.0.1:1/x"], 1, "is out of reach"),
    ],
)
def test_mistakes_are_one_line(here: Here, arguments: list[str], code: int, said: str) -> None:
    upgrade(here.files.database)
    done = here.run(*arguments)
    assert done.code == code
    assert said in one_line(done)


def test_nobody_writes_to_the_source_while_it_is_copied(answered: Here, empty_postgres_url: str) -> None:
    """What was written then would be missed."""
    refused = []

    def write(done: str, rows: int, total: int) -> None:
        with closing(sqlite3.connect("distllm.db", timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                refused.append(str(error))

    url = PostgresUrl(empty_postgres_url)
    copied = asyncio.run(copy_database(answered.files.database, url, write))
    assert copied.changed
    assert set(refused) == {"database is locked"}
    assert answered.run("status").code == 0


def test_a_source_that_another_program_writes_to_is_not_copied(
    answered: Here, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distllm.store.postgres.copying.WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect("distllm.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        refused = answered.run("db", "copy", empty_postgres_url)
    assert refused.code == 1
    assert "another program has held it" in one_line(refused)
    assert asyncio.run(ask(empty_postgres_url, "SELECT to_regclass('jobs') IS NULL"))


async def test_one_target_is_copied_into_by_one_at_a_time(
    cli: Cli, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distllm.store.postgres.copying.WAIT_SECONDS", 0.1)
    upgrade(cli.database)
    other = await asyncpg.connect(empty_postgres_url)
    await other.execute("SELECT pg_advisory_lock(hashtext('distllm'), hashtext('copy'))")
    with pytest.raises(DistllmError, match=r"another copy into .* is under way"):
        await copy_database(cli.database, PostgresUrl(empty_postgres_url), lambda *_: None)
    await other.close()
