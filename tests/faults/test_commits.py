"""A COMMIT that happened and is said to have failed: whoever tries again changes nothing a second time."""

import asyncio
import sqlite3
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

import asyncpg
import pytest

from distllm.dispatcher import turns
from distllm.store.tx import StoreError
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import BREAKS_OFF
from tests.fakes.server import FakeServer

lies: Iterator[Exception | None] = cycle([None])
"""What is raised after each COMMIT that has happened, and would be if it had not."""


def lie(statement: str) -> None:
    error = next(lies) if statement == "COMMIT" else None
    if error is not None:
        raise error


def tell(*told: Exception | None) -> None:
    global lies
    lies = cycle(told)


class LyingFile(sqlite3.Connection):
    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        done = super().execute(statement, *values)
        lie(statement)
        return done


class LyingServer(asyncpg.Connection):
    async def execute(self, statement: str, *values: Any, **more: Any) -> str:
        done = await super().execute(statement, *values, **more)
        lie(statement)
        return str(done)


@pytest.fixture(autouse=True)
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection is a liar that tells the truth until it is told to lie."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=LyingFile))
    monkeypatch.setattr(asyncpg, "connect", partial(asyncpg.connect, connection_class=LyingServer))
    monkeypatch.setattr(turns, "LONGEST_WAIT_SECONDS", 0.01)
    yield
    tell(None)


PASSING = {
    "sqlite": sqlite3.OperationalError("database is locked"),
    "postgres": asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
}
FINAL = {
    "sqlite": sqlite3.OperationalError("disk I/O error"),
    "postgres": asyncpg.PostgresIOError("could not write block: Input/output error"),
}


@pytest.mark.parametrize(
    "lies",
    [[True, False], [True, True, True, False], [False, False, True]],
    ids=["every other commit", "three in a row", "every third commit"],
)
async def test_a_run_that_is_lied_to_asks_and_counts_everything_once(bench: Bench, lies: list[bool]) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?", "How?"])
    async with FakeServer(slots=2, seconds_per_token=0.005) as server:
        server.behave(BREAKS_OFF)
        run = asyncio.create_task(bench.work(server))
        await server.until(lambda: len(server.requests) >= 1)
        tell(*(PASSING[bench.store.engine] if each else None for each in lies))
        await run
        tell(None)
        assert len(server.requests) == 13
    assert bench.rows("SELECT count(*), sum(failures), sum(losses) FROM prompts") == [(12, 1, 0)]
    assert bench.rows("SELECT requests, succeeded, failed FROM workers") == [(13, 12, 1)]
    assert bench.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [("broken", 1), ("done", 12)]
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 12)]
    bench.assert_consistent()


async def test_what_was_committed_by_a_run_that_then_stopped_is_not_asked_again(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?"])
    async with FakeServer(seconds_per_token=0.005) as server:
        run = asyncio.create_task(bench.work(server))
        await server.until(lambda: len(server.requests) >= 3)
        tell(FINAL[bench.store.engine])
        with pytest.raises(StoreError, match=r"(?i)i(nput)?/o(utput)? error"):
            await run
        tell(None)
        answered = bench.rows("SELECT count(*) FROM results")[0][0]
        asked = len(server.requests)
        assert answered >= 2
        await bench.work(server)
        assert len(server.requests) == asked + 6 - answered
    assert bench.rows("SELECT count(*), sum(failures) FROM prompts") == [(6, 0)]
    assert bench.rows("SELECT sum(succeeded) FROM workers") == [(6,)]
    bench.assert_consistent()
