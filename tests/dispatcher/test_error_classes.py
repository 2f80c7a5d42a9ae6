"""What costs a retry: each sign of the table of error classes, over a real socket, to the last column."""

import asyncio

import pytest

from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import (
    A_TENTH_LOST,
    ABORTS,
    BAD_SCHEMA,
    BREAKS_OFF,
    BUSY,
    CRASHED,
    CUT,
    EMPTY,
    HALVED,
    LOAD_FAILED,
    N_KEEP,
    NO_MODEL,
    ONLY_THINKS,
    PAGE_200,
    POOL_FULL,
    PROXY_PAGE,
    RESET,
    TOO_LONG,
    TOO_MANY,
    UNEXPECTED_ENDPOINT,
    UNKNOWN_IDENTIFIER,
    WRONG_KEY,
    Behaviour,
    Ending,
    fails_inside,
)
from tests.fakes.server import FakeServer

BROKEN = {
    "another 500": LOAD_FAILED,
    "a proxy's page": PROXY_PAGE,
    "a page with status 200": PAGE_200,
    "an end without marker": BREAKS_OFF,
    "an error after tokens": fails_inside({"message": "it failed", "code": 500}),
    "an empty answer with stop": EMPTY,
    "only thoughts": ONLY_THINKS,
    "no finish reason": Behaviour(ending=Ending.NO_REASON),
}
BUSY_OR_REFUSED = {
    "503": (BUSY, "busy"),
    "429": (TOO_MANY, "busy"),
    "a pool that is full": (POOL_FULL, "busy"),
    "a pool that is full, told in the stream": (fails_inside({"message": "Context size has been exceeded."}), "busy"),
}
LOST = {
    "a reset before any byte": RESET,
    "a reset after a token": ABORTS,
    "a runner that has crashed": CRASHED,
}
INPUT = {
    "too long": (TOO_LONG, "input"),
    "too long, in a string": (N_KEEP, "input"),
    "too long, told in the stream": (fails_inside("n_keep: 13055>= n_ctx: 4096", after=0), "input"),
    "a bad schema": (BAD_SCHEMA, "input"),
    "half of it read": (HALVED, "cut input"),
}
SETUP = {
    "401": WRONG_KEY,
    "404": NO_MODEL,
    "an unknown identifier": UNKNOWN_IDENTIFIER,
    "an unknown endpoint, with status 200": UNEXPECTED_ENDPOINT,
}
WHOLE = {
    "as asked": (Behaviour(), "stop"),
    "cut at its limit": (CUT, "length"),
    "without the closing line": (Behaviour(ending=Ending.NO_DONE), "stop"),
    # Tokenizers differ by more than a tenth: where the server's cannot be asked, this is no proof of a cut.
    "a tenth of it counted less": (A_TENTH_LOST, "stop"),
}

# One token for each word, so that half of them are fewer than the fewest that it can be.
PROSE = "it has a few plain words in it and no more " * 12


def outcomes(bench: Bench) -> list[str]:
    return [outcome for (outcome,) in bench.rows("SELECT outcome FROM attempts ORDER BY id")]


@pytest.mark.parametrize("sign", BROKEN)
async def test_what_is_broken_after_sending_costs_a_retry(bench: Bench, sign: str) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave(BROKEN[sign])
        await bench.work(server, max_retries=1)
    assert outcomes(bench) == ["broken", "done"]
    assert bench.rows("SELECT state, failures FROM prompts") == [("done", 1)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", BROKEN)
async def test_what_is_broken_to_the_last_retry_fails_the_prompt(bench: Bench, sign: str) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave_always(BROKEN[sign])
        await bench.work(server, max_retries=1)
    assert outcomes(bench) == ["broken", "broken"]
    assert bench.rows("SELECT state, failures FROM prompts") == [("failed", 2)]
    assert bench.rows("SELECT attempts, worker, error <> '' FROM failures") == [(2, "w0", 1)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", BUSY_OR_REFUSED)
async def test_who_cannot_take_it_now_costs_nothing(bench: Bench, sign: str) -> None:
    behaviour, label = BUSY_OR_REFUSED[sign]
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave(behaviour)
        await bench.work(server, max_retries=0)
    assert outcomes(bench) == [label, "done"]
    assert bench.rows("SELECT state, failures FROM prompts") == [("done", 0)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", LOST)
async def test_a_server_that_goes_down_with_a_request_costs_no_retry_but_is_remembered(bench: Bench, sign: str) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave(LOST[sign])
        await bench.work(server, max_retries=0)
    assert outcomes(bench) == ["lost", "done"]
    assert bench.rows("SELECT state, failures, losses FROM prompts") == [("done", 0, 1)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", INPUT)
async def test_who_cannot_hold_it_is_not_asked_again_but_another_is(bench: Bench, sign: str) -> None:
    behaviour, label = INPUT[sign]
    await store_job(bench.database, [PROSE], ["What?"])
    async with FakeServer() as small, FakeServer() as large:
        small.behave_always(behaviour)
        large.seconds_per_token = 0.001
        await bench.work(small, large, max_retries=0)
        assert len(small.requests) <= 1
        assert len(large.requests) == 1
    assert outcomes(bench)[-1] == "done"
    assert outcomes(bench)[:-1] == [label] * len(small.requests)
    assert bench.rows("SELECT state, failures FROM prompts") == [("done", 0)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", INPUT)
async def test_what_nobody_can_hold_fails_with_what_the_server_said(bench: Bench, sign: str) -> None:
    behaviour, label = INPUT[sign]
    await store_job(bench.database, [PROSE], ["What?"])
    async with FakeServer() as server:
        server.behave_always(behaviour)
        await bench.work(server)
    assert outcomes(bench) == [label]
    assert bench.rows("SELECT state, failures FROM prompts") == [("failed", 0)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", SETUP)
async def test_a_server_that_is_set_up_wrongly_is_left_and_costs_nothing(bench: Bench, sign: str) -> None:
    await store_job(bench.database, [paper(0), paper(1)], ["What?"])
    async with FakeServer() as wrong, FakeServer(seconds_per_token=0.001) as right:
        wrong.behave_always(SETUP[sign])
        await bench.work(wrong, right, max_retries=0, health_check_interval=30.0)
        assert len(wrong.requests) <= 1
    assert set(outcomes(bench)) <= {"setup", "done"}
    assert bench.rows("SELECT DISTINCT state, failures FROM prompts") == [("done", 0)]
    bench.assert_consistent()


@pytest.mark.parametrize("sign", WHOLE)
async def test_what_is_whole_is_kept_at_once(bench: Bench, sign: str) -> None:
    behaviour, reason = WHOLE[sign]
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer(tokenizes=False) as server:
        server.behave(behaviour)
        await bench.work(server, max_retries=0)
        assert len(server.requests) == 1
    assert bench.rows("SELECT finish_reason, attempts FROM answers") == [(reason, 1)]
    bench.assert_consistent()


async def test_what_is_stopped_costs_nothing(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        server.behave(Behaviour(tokens=1, ending=Ending.HANG))
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) == 1)
        coordinator.abort()
        await run
    assert outcomes(bench) == ["released"]
    assert bench.rows("SELECT state, failures, losses FROM prompts") == [("pending", 0, 0)]
