"""A database that cannot be written for a time, under a coordinator: nothing is lost, and nothing hangs."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from distllm.dispatcher import coordinator as coordinators
from distllm.store import sqlite
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import HELD
from tests.fakes.server import FakeServer


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the database as another program does that writes and does not end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 - what is told or answered sets no event here
            await asyncio.sleep(0.01)


async def pages_at_most(sqlite_bench: Bench, pages: int) -> None:
    """Let the database grow no more than to `pages`: SQLite says then that it is full."""
    await sqlite_bench.database.write(lambda tx: tx._connection.execute(f"PRAGMA max_page_count={pages}"))


async def test_a_database_that_another_program_holds_delays_and_loses_nothing(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 1.0)
    await store_job(sqlite_bench.database, [paper(n) for n in range(8)], ["What?", "How?"])
    async with FakeServer(slots=2, seconds_per_token=0.01) as server:
        run = asyncio.create_task(sqlite_bench.work(server))
        await server.until(lambda: len(server.requests) >= 3)
        with held(sqlite_bench.database.place):
            await until(sqlite_bench.said)
            asked = len(server.requests)
            # What was leased is asked to its end; nothing is leased anew.
            await asyncio.wait([run], timeout=0.5)
            assert len(server.requests) <= asked + 4
        await run
        assert len(server.requests) == 16
    assert any("locked" in text and "nothing is lost" in text for text in sqlite_bench.said())
    assert sqlite_bench.rows("SELECT count(*) FROM results") == [(16,)]
    sqlite_bench.assert_consistent()


async def test_a_full_database_pauses_the_leasing_and_loses_nothing(sqlite_bench: Bench) -> None:
    answer = " ".join(f"word{n}" for n in range(3000))
    await store_job(sqlite_bench.database, [paper(n) for n in range(8)], ["What?"], max_tokens=4000)
    async with FakeServer(answer=lambda _: answer, context=100_000) as server:
        [(pages,)] = sqlite_bench.rows("PRAGMA page_count")
        await pages_at_most(sqlite_bench, pages + 10)
        run = asyncio.create_task(sqlite_bench.work(server))
        await until(sqlite_bench.said)
        assert not run.done()
        assert len(server.requests) < 8
        await pages_at_most(sqlite_bench, 10**6)
        await run
        assert len(server.requests) == 8
    assert len([text for text in sqlite_bench.said() if "full" in text]) == 1
    assert sqlite_bench.rows("SELECT count(*), min(length(answer)) FROM results") == [(8, len(answer))]
    sqlite_bench.assert_consistent()


async def test_a_reader_that_does_not_end_pauses_the_leasing_until_it_does(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_job(sqlite_bench.database, [paper(n) for n in range(12)], ["What?"])
    log = sqlite_bench.store.place.with_name("d.db-wal")
    longest = log.stat().st_size + 50_000
    monkeypatch.setattr(sqlite, "LONGEST_LOG_BYTES", longest)
    async with FakeServer() as server:
        with closing(sqlite3.connect(sqlite_bench.database.place)) as reader:
            cursor = reader.execute("SELECT id FROM prompts")
            cursor.fetchone()
            run = asyncio.create_task(sqlite_bench.work(server))
            await until(sqlite_bench.said)
            asked = len(server.requests)
            await asyncio.wait([run], timeout=0.5)
            assert not run.done()
            assert len(server.requests) <= asked + 1 < 12
            # What was in flight waits in memory, and the log does not grow.
            assert longest < log.stat().st_size < longest + 100_000
            cursor.close()
        await run
        assert len(server.requests) == 12
    [said] = sqlite_bench.said()
    assert "keeps it from being emptied: close that program (waiting; nothing is lost)" in said
    assert log.stat().st_size < longest
    assert sqlite_bench.rows("SELECT count(*) FROM results") == [(12,)]
    sqlite_bench.assert_consistent()


async def test_told_to_stop_it_writes_what_has_ended_also_beside_a_reader_that_does_not_end(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_job(sqlite_bench.database, [paper(n) for n in range(4)], ["What?"])
    async with FakeServer() as server, sqlite_bench.coordinator(server) as coordinator:
        server.behave(HELD)
        with closing(sqlite3.connect(sqlite_bench.database.place)) as reader:
            cursor = reader.execute("SELECT id FROM prompts")
            cursor.fetchone()
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await server.until(lambda: len(server.requests) == 1)
            monkeypatch.setattr(sqlite, "LONGEST_LOG_BYTES", 1)
            server.release()
            await until(sqlite_bench.said)
            coordinator.stop()
            coordinator.abort()
            async with asyncio.timeout(10):
                await run
            cursor.close()
    assert sqlite_bench.rows("SELECT count(*) FROM results") == [(1,)]
    sqlite_bench.assert_consistent()


async def test_told_to_stop_twice_it_leaves_a_locked_database_within_seconds(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinators, "LEAVE_SECONDS", 0.5)
    await store_job(sqlite_bench.database, [paper(n) for n in range(4)], ["What?"])
    async with FakeServer(seconds_per_token=0.05) as server, sqlite_bench.coordinator(server) as coordinator:
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) >= 1)
        with held(sqlite_bench.database.place):
            await until(lambda: server.requests[0].ended)
            coordinator.stop()
            done, _ = await asyncio.wait([run], timeout=0.3)
            assert not done
            coordinator.abort()
            async with asyncio.timeout(10):
                await run
    # Its leases are taken back by who comes next, and everything is asked that was not written.
    async with FakeServer() as again:
        await sqlite_bench.work(again)
        assert 3 <= len(again.requests) <= 4
    sqlite_bench.assert_consistent()
