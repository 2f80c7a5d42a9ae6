"""How long a call may take: to its first token, between chunks, and in all. The clock is moved, not waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from distllm.domain.clock import Clock
from distllm.store.database import open_database
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.dispatcher.movable import MovableLoop, run_movable
from tests.fakes.behaviour import HANGS, STALLS, Behaviour, Ending
from tests.fakes.server import FakeServer
from tests.store.store_kit import SqliteStore

LONG_PAPER = "words " * 29_800
"""About 40,000 tokens by the estimate."""

Steps = Callable[[MovableLoop, FakeServer], Awaitable[None]]


def work(store: SqliteStore, text: str, server: FakeServer, steps: Steps, **settings: Any) -> list[tuple[Any, ...]]:
    """Work one prompt about `text` while `steps` move the clock; return (outcome, error) of its attempts."""

    async def story(loop: MovableLoop) -> None:
        async with open_database(store.place) as database, server:
            bench = Bench(database, store)
            await store_job(database, [text], ["What?"], max_tokens=settings.pop("max_tokens", 50))
            running = bench.coordinator(server, health_check_interval=1e9, clock=Clock(ticks=loop.time), **settings)
            async with running as coordinator:
                run = asyncio.create_task(coordinator.run(lambda _: True))
                await within(server, lambda: len(server.requests) == 1)
                await steps(loop, server)
                await finished(run)

    run_movable(story)
    return store.rows("SELECT outcome, error FROM attempts ORDER BY id")


async def within(server: FakeServer, met: Callable[[], bool], turns: int = 20) -> None:
    """Wait for a condition on the server, on a clock that may be moved meanwhile."""
    for _ in range(turns):
        try:
            await server.until(met, seconds=1.0)
        except TimeoutError:
            continue
        return
    raise TimeoutError


async def finished(run: asyncio.Task[None]) -> None:
    done, _ = await asyncio.wait([run], timeout=20)
    assert done
    await run


async def holds(met: Callable[[], object]) -> None:
    """Wait until a server is where its request should be, and a moment more."""
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 - the fake sets no event in the middle of a stream
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "silence",
    [Behaviour(headers_after=400.0), Behaviour(first_token_after=400.0), Behaviour(first_token_after=400.0, pings=3)],
    ids=["no headers", "headers and no token", "comments and no token"],
)
def test_a_paper_of_40_000_tokens_may_be_read_in_silence_for_400_seconds(
    sqlite_store: SqliteStore, silence: Behaviour
) -> None:
    server = FakeServer(context=200_000)
    server.behave(silence)

    async def steps(loop: MovableLoop, server: FakeServer) -> None:
        await holds(lambda: silence.headers_after or server.requests[0].slot is not None)
        for _ in range(4):
            loop.advance(100.5)
            await asyncio.sleep(0.05)

    assert work(sqlite_store, LONG_PAPER, server, steps, request_timeout=300.0, max_retries=0) == [("done", None)]
    assert len(server.requests) == 1
    assert sqlite_store.rows("SELECT attempts, seconds >= 400 FROM answers") == [(1, 1)]
    [(tokens,)] = sqlite_store.rows("SELECT sent_tokens FROM attempts")
    assert 38_000 <= tokens <= 44_000


def test_silence_beyond_the_limit_of_its_tokens_costs_a_retry(sqlite_store: SqliteStore) -> None:
    server = FakeServer(context=200_000)
    server.behave(HANGS)

    async def steps(loop: MovableLoop, server: FakeServer) -> None:
        loop.advance(800.0)
        await asyncio.sleep(0.05)
        assert len(server.requests) == 1
        # 300 s, and some 42,000 tokens at 50 a second.
        loop.advance(400.0)
        await within(server, lambda: len(server.requests) == 2)

    found = work(sqlite_store, LONG_PAPER, server, steps, request_timeout=300.0, max_retries=1)
    assert [outcome for outcome, _ in found] == ["broken", "done"]
    assert found[0][1].split(": ", 1)[1].startswith("no token within 11")


@pytest.mark.parametrize("seconds", [30.0, 300.0])
def test_a_short_prompt_has_the_configured_time_to_its_first_token(sqlite_store: SqliteStore, seconds: float) -> None:
    server = FakeServer()
    server.behave(HANGS)

    async def steps(loop: MovableLoop, server: FakeServer) -> None:
        loop.advance(seconds - 5.0)
        await asyncio.sleep(0.05)
        assert len(server.requests) == 1
        loop.advance(20.0)

    found = work(sqlite_store, paper(0), server, steps, request_timeout=seconds, max_retries=1)
    assert [outcome for outcome, _ in found] == ["broken", "done"]


def test_after_the_first_token_a_minute_of_silence_is_too_long(sqlite_store: SqliteStore) -> None:
    server = FakeServer()
    server.behave(STALLS)

    async def steps(loop: MovableLoop, server: FakeServer) -> None:
        await holds(lambda: server.requests[0].sent_tokens == 2)
        loop.advance(50.0)
        await asyncio.sleep(0.05)
        assert len(server.requests) == 1
        loop.advance(11.0)

    found = work(sqlite_store, paper(0), server, steps, request_timeout=300.0, max_retries=1)
    assert [outcome for outcome, _ in found] == ["broken", "done"]
    assert "silent for 60 s" in found[0][1]


def test_a_slow_drip_ends_at_the_limit_of_the_whole(sqlite_store: SqliteStore) -> None:
    server = FakeServer()
    server.behave(Behaviour(per_token=50.0, ending=Ending.ENDLESS))

    async def steps(loop: MovableLoop, server: FakeServer) -> None:
        # 300 s, some 9 s for its tokens, and 4 x 50 tokens at one a second: no gap is too long, but the whole is.
        for drip in range(20):
            before = len(server.requests)
            loop.advance(50.0)
            await asyncio.sleep(0.05)
            if len(server.requests) > before or server.requests[0].ended:
                assert drip >= 8
                return
        raise AssertionError("it drips for ever")

    found = work(sqlite_store, paper(0), server, steps, request_timeout=300.0, max_retries=1, max_tokens=50)
    assert [outcome for outcome, _ in found] == ["broken", "done"]
    assert "no end of the answer within 5" in found[0][1]
