"""A COMMIT that happened and is said to have failed: whoever tries again changes nothing a second time."""

import asyncio
import sqlite3
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

import pytest

from distllm.dispatcher import turns
from distllm.store.tx import StoreError
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import BREAKS_OFF
from tests.fakes.server import FakeServer


class Liar(sqlite3.Connection):
    """Commits, and says that it could not whenever `lies` has a text for it. Raises what SQLite would."""

    lies: Iterator[str | None] = cycle([None])

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        done = super().execute(statement, *values)
        lie = next(Liar.lies) if statement == "COMMIT" else None
        if lie is not None:
            raise sqlite3.OperationalError(lie)
        return done


@pytest.fixture(autouse=True)
def lying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is a liar that tells the truth until it is told to lie."""
    monkeypatch.setattr(Liar, "lies", cycle([None]))
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Liar))
    monkeypatch.setattr(turns, "LONGEST_WAIT_SECONDS", 0.01)


@pytest.mark.parametrize(
    "lies",
    [["database is locked", None], ["database or disk is full"] * 3 + [None], [None, None, "database is locked"]],
    ids=["every other commit", "three in a row", "every third commit"],
)
async def test_a_run_that_is_lied_to_asks_and_counts_everything_once(bench: Bench, lies: list[str | None]) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?", "How?"])
    async with FakeServer(slots=2, seconds_per_token=0.005) as server:
        server.behave(BREAKS_OFF)
        run = asyncio.create_task(bench.work(server))
        await server.until(lambda: len(server.requests) >= 1)
        Liar.lies = cycle(lies)
        await run
        Liar.lies = cycle([None])
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
        Liar.lies = cycle(["disk I/O error"])
        with pytest.raises(StoreError, match="disk I/O error"):
            await run
        Liar.lies = cycle([None])
        answered = bench.rows("SELECT count(*) FROM results")[0][0]
        asked = len(server.requests)
        assert answered >= 2
        await bench.work(server)
        assert len(server.requests) == asked + 6 - answered
    assert bench.rows("SELECT count(*), sum(failures) FROM prompts") == [(6, 0)]
    assert bench.rows("SELECT sum(succeeded) FROM workers") == [(6,)]
    bench.assert_consistent()
