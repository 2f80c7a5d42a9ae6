"""Faults that only a server has: full, cut off, restarted, too busy, held by another program, or closed to a user."""

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from distllm.domain.places import PostgresUrl
from distllm.store.database import open_database
from distllm.store.postgres import questions, writer
from tests.cli.conftest import Cli
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.server import FakeServer
from tests.faults.conftest import succeeds
from tests.postgres_server import PostgresServer, running
from tests.required import require
from tests.store.store_kit import PostgresStore
from tests.store.test_silent_server import Cable


async def until_said(bench: Bench, words: str) -> None:
    async with asyncio.timeout(30):
        while not any(words in text for text in bench.said()):  # noqa: ASYNC110 - a listener sets no event
            await asyncio.sleep(0.02)


def fill(file: Path) -> None:
    """Take all the room there is on a disk."""
    with suppress(OSError), file.open("wb", buffering=0) as taken:
        while taken.write(bytes(2**16)):
            pass


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return f"postgresql://{user}@{parts.hostname}:{parts.port}{parts.path}"


@asynccontextmanager
async def opened(server: PostgresServer, url: str, seen: str) -> AsyncIterator[Bench]:
    """A bench on a database at `url`, whose coordinators see it at another URL."""
    store = PostgresStore(server, url)
    try:
        async with open_database(PostgresUrl(seen)) as database:
            yield Bench(database, store)
    finally:
        store.close()


@pytest.fixture
def on_a_small_disk(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A database whose tables are on a disk of their own, of 32 megabytes, and the folder where that is."""
    # The server need not be the user whose folder this is.
    place = Path("/tmp") / f"distllm-small-disk-{postgres_server.port}"
    place.mkdir()
    try:
        mounted = succeeds("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place)
        require(mounted, "only Linux's root mounts a small disk")
        tables = place / "tables"
        tables.mkdir()
        shutil.chown(place, "postgres")
        shutil.chown(tables, "postgres")
        postgres_server.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")
        postgres_server.execute("CREATE DATABASE small TEMPLATE template TABLESPACE small")
        try:
            yield postgres_server.url("small"), place
        finally:
            postgres_server.execute("DROP DATABASE small WITH (FORCE)")
            postgres_server.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        place.rmdir()


@pytest.fixture
def user(postgres_server: PostgresServer, postgres_url: str) -> Iterator[str]:
    """A user of the server with no rights."""
    postgres_server.execute("CREATE ROLE somebody LOGIN")
    try:
        yield "somebody"
    finally:
        postgres_server.execute("DROP OWNED BY somebody", database_of(postgres_url))
        postgres_server.execute("DROP ROLE somebody")


async def test_a_server_whose_disk_is_full_is_waited_for_until_there_is_room(
    postgres_server: PostgresServer, on_a_small_disk: tuple[str, Path]
) -> None:
    url, place = on_a_small_disk
    # Nothing of it is alike, so that compressing it saves little.
    answer = " ".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(250))
    async with (
        FakeServer(answer=lambda _: answer, context=200_000) as server,
        opened(postgres_server, url, url) as bench,
    ):
        await store_job(bench.database, [paper(n) for n in range(12)], ["What?"], max_tokens=4000)
        run = asyncio.create_task(bench.work(server, seconds=60))
        await server.until(lambda: len(server.requests) >= 2)
        filler = place / "somebody else's"
        fill(filler)
        await until_said(bench, "is full")
        held = len(server.requests)
        assert held < 12
        with pytest.raises(TimeoutError):
            await server.until(lambda: len(server.requests) > held + 3, seconds=1.0)
        filler.unlink()
        await run
        assert len(server.requests) == 12
        [said] = [text for text in bench.said() if "full" in text]
        assert "make room on its server (waiting; nothing is lost)" in said
        assert bench.rows("SELECT count(*), min(length(answer)), max(attempts) FROM answers") == [(12, len(answer), 1)]
        bench.assert_consistent()


@pytest.mark.parametrize("what", ["LOCK TABLE prompts IN ACCESS EXCLUSIVE MODE", "SELECT 1 FROM prompts FOR UPDATE"])
async def test_what_another_program_holds_is_waited_for_and_that_is_said(
    postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    monkeypatch.setitem(writer._WRITING, "lock_timeout", "500ms")
    for module in (writer, questions):
        monkeypatch.setattr(module, "STATEMENT_SECONDS", 2.0)
    await store_job(postgres_bench.database, [paper(n) for n in range(8)], ["What?", "How?"])
    async with FakeServer(slots=2, seconds_per_token=0.02) as server:
        other = await asyncpg.connect(postgres_bench.store.place.secret)
        run = asyncio.create_task(postgres_bench.work(server, seconds=60))
        await server.until(lambda: len(server.requests) >= 3)
        async with other.transaction():
            await other.execute(what)
            await until_said(postgres_bench, "(waiting; nothing is lost)")
            asked = len(server.requests)
            with pytest.raises(TimeoutError):
                await server.until(lambda: len(server.requests) > asked + 4, seconds=1.0)
        await other.close()
        await run
        assert len(server.requests) == 16
    assert "is held by another program; waiting up to 2 s" in caplog.text
    [said] = [text for text in postgres_bench.said() if "nothing is lost" in text]
    assert "is held by another program: canceling statement due to lock timeout; end it" in said
    assert postgres_bench.rows("SELECT sum(failures), sum(losses) FROM prompts") == [(0, 0)]
    postgres_bench.assert_consistent()


async def test_a_server_with_no_connection_to_spare_is_waited_for(
    cli: Cli, postgres_server: PostgresServer, postgres_url: str, user: str
) -> None:
    for what in ("TABLES", "SEQUENCES"):
        postgres_server.execute(f"GRANT ALL ON ALL {what} IN SCHEMA public TO {user}", database_of(postgres_url))
    seen = as_user(postgres_url, user)
    async with FakeServer(seconds_per_token=0.02) as server, opened(postgres_server, postgres_url, seen) as bench:
        await store_job(bench.database, [paper(n) for n in range(10)], ["What?"])
        run = asyncio.create_task(bench.work(server, seconds=60))
        await server.until(lambda: len(server.requests) >= 3)
        postgres_server.execute(f"ALTER ROLE {user} CONNECTION LIMIT 0")
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'")
        await until_said(bench, "nothing is lost")
        done = await cli.run("--db", seen, "status")
        assert (done.code, len(done.err.strip().splitlines())) == (1, 1)
        assert "is busy: too many connections for role" in done.err
        assert not run.done()
        postgres_server.execute(f"ALTER ROLE {user} CONNECTION LIMIT -1")
        await run
        assert bench.rows("SELECT count(*), max(attempts) <= 2 FROM answers") == [(10, 1)]
        assert bench.rows("SELECT sum(failures) FROM prompts") == [(0,)]
        bench.assert_consistent()


async def test_what_a_server_does_not_let_a_user_do_is_one_line(
    cli: Cli, postgres_server: PostgresServer, empty_postgres_url: str, postgres_url: str, user: str
) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        submit = ("submit", "papers", "--prompt", "What?")
        for url, command in (
            (empty_postgres_url, submit),
            (postgres_url, submit),
            (postgres_url, ("status",)),
            (postgres_url, ("resume",)),
            (postgres_url, ("db", "check")),
        ):
            done = await cli.run("--db", as_user(url, user), *command)
            assert done.code == 1, (command, done)
            last = done.err.strip().splitlines()[-1]
            assert last.startswith("distllm: the database postgresql://somebody@127.0.0.1"), (command, done)
            assert "permission denied" in last, (command, done)
            assert "give its user the right to it" in last, (command, done)
            assert "Traceback" not in done.err
        assert not server.requests


async def test_a_server_that_is_restarted_midway_costs_no_answer_and_is_spoken_of_in_one_line(cli: Cli) -> None:
    cli.papers(10)
    with running("--durable") as postgres_server:
        url = postgres_server.url("postgres")
        async with FakeServer(slots=2, seconds_per_token=0.05) as server:
            cli.use(server)
            process = await cli.start("--db", url, "submit", "papers", "--prompt", "What?")
            await server.until(lambda: len(server.requests) >= 4, 40)
            await asyncio.to_thread(postgres_server.crash)
            await asyncio.wait([asyncio.create_task(process.wait())], timeout=2.0)
            assert process.returncode is None
            await asyncio.to_thread(postgres_server.start)
            done = await cli.finish(process)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        assert "nothing is lost" in done.err or "what was in flight is asked again" in done.err
        store = PostgresStore(postgres_server, url)
        try:
            assert store.rows("SELECT count(*) FROM answers") == [(10,)]
            assert store.rows("SELECT sum(failures) FROM prompts") == [(0,)]
        finally:
            store.close()


async def test_a_connection_that_is_cut_without_a_word_ends_what_is_in_flight_and_is_opened_anew(
    postgres_server: PostgresServer,
    postgres_url: str,
    cable: tuple[Cable, PostgresUrl],
) -> None:
    between, place = cable
    async with (
        FakeServer(slots=2, seconds_per_token=0.02) as server,
        opened(postgres_server, postgres_url, place.secret) as bench,
    ):
        await store_job(bench.database, [paper(n) for n in range(8)], ["What?"])
        run = asyncio.create_task(bench.work(server, seconds=45))
        await server.until(lambda: len(server.requests) >= 3)
        server.seconds_per_token = 10.0
        await server.until(lambda: server.in_flight == 2)
        between.cut = True
        # Others may have its workers as soon as its row has run out and a request must have ended.
        await server.until(lambda: server.in_flight == 0, seconds=15)
        asked, server.seconds_per_token = len(server.requests), 0.0
        with pytest.raises(TimeoutError):
            await server.until(lambda: len(server.requests) > asked, seconds=1.0)
        between.cut = False
        await run
        assert len(server.requests) <= 8 + 4
        assert bench.rows("SELECT count(*) FROM answers") == [(8,)]
        assert bench.rows("SELECT sum(failures) FROM prompts") == [(0,)]
        bench.assert_consistent()
    assert any("what was in flight is asked again" in text for text in bench.said())
