"""A straggler is asked of a second, idle worker too: the first answer is the result, the other request is stopped."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from distllm.balancer.policies import Machine
from distllm.domain.clock import Clock
from distllm.domain.events import Answered, TriedInVain
from distllm.domain.models import Ask, Rates
from distllm.store.control import cancel_some, go_on, pause, request_cancel
from distllm.store.tx import Tx
from tests.dispatcher.conftest import FAST, SLOW, Bench, knows, paper, store_job
from tests.fakes.behaviour import BREAKS_OFF, HANGS, HELD, STALLS
from tests.fakes.server import FakeServer

WELL, ILL = 200, 503
FAILS_LATER = replace(BREAKS_OFF, held=True)


@asynccontextmanager
async def working(
    bench: Bench, slow: FakeServer, fast: FakeServer, *, comes_up: bool = True, **settings: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """One prompt, in flight on the slow worker, while the fast one has just come up; at the end the job has ended."""
    fast.probe_status = ILL
    async with slow, fast:
        await knows(bench, slow, settings.pop("pace_of_slow", SLOW))
        await knows(bench, fast, settings.pop("pace_of_fast", FAST))
        await store_job(bench.database, [paper(0)], ["What?"])
        async with bench.coordinator(slow, fast, **settings) as coordinator:
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await slow.until(lambda: len(slow.requests) == 1)
            fast.probe_status = WELL if comes_up else ILL
            try:
                yield run
            finally:
                coordinator.abort()
                await ends(run)
        bench.assert_consistent()


def probed(server: FakeServer, times: int) -> Callable[[], bool]:
    """Whether a server has been asked so many times more how it is."""
    before = server.probes
    return lambda: server.probes >= before + times


async def ends(run: asyncio.Task[None]) -> None:
    async with asyncio.timeout(5):
        await run


def attempts(bench: Bench) -> list[tuple[Any, ...]]:
    return bench.rows("SELECT lease, outcome FROM attempts ORDER BY id")


def prompt(bench: Bench) -> tuple[Any, ...]:
    return bench.rows("SELECT state, lease, failures, losses FROM prompts")[0]


async def test_a_worker_that_goes_silent_in_mid_answer_is_waited_for_no_longer_than_another_needs(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(STALLS)
    async with working(bench, slow, fast) as run:
        await ends(run)
        assert len(fast.requests) == len(slow.requests) == 1
        await slow.until(lambda: slow.requests[0].ended == "disconnected")
    assert attempts(bench) == [(1, "stale"), (1, "done")]
    assert prompt(bench) == ("done", 1, 0, 0)
    assert bench.rows("SELECT worker, attempts FROM answers") == [("w1", 2)]
    # It is no failure of the slow worker, and nobody is told of one.
    assert bench.rows("SELECT worker, requests - 10, failed FROM worker_stats ORDER BY 1") == [
        ("w0", -10, 0),
        ("w1", -9, 0),
    ]
    assert bench.rows("SELECT DISTINCT breaker FROM workers") == [("closed",)]
    told = [type(event) for event in bench.events if isinstance(event, Answered | TriedInVain)]
    assert told == [Answered]


async def test_a_worker_that_is_only_slow_is_not_waited_for_either(bench: Bench) -> None:
    slow, fast = FakeServer(seconds_per_token=1.0), FakeServer()
    async with working(bench, slow, fast) as run:
        await ends(run)
        assert slow.requests[0].sent_tokens < 5
    assert attempts(bench) == [(1, "stale"), (1, "done")]


async def test_who_is_nearly_done_is_waited_for(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    async with working(bench, slow, fast, pace_of_slow=FAST) as run:
        await fast.until(probed(fast, 3))
        assert not fast.requests
        slow.release()
        await ends(run)
    assert attempts(bench) == [(1, "done")]


async def test_who_takes_far_longer_than_expected_is_hedged_by_a_worker_that_is_no_faster(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(STALLS)
    passed = 0.0
    clock = Clock(ticks=lambda: time.monotonic() + passed)
    async with working(bench, slow, fast, pace_of_slow=FAST, clock=clock) as run:
        await fast.until(probed(fast, 5))
        assert not fast.requests
        passed = 60.0
        await ends(run)
    assert attempts(bench) == [(1, "stale"), (1, "done")]


async def test_a_worker_that_misses_probes_with_a_request_in_flight_is_hedged_whatever_is_known(bench: Bench) -> None:
    slow, fast = FakeServer(kind="plain"), FakeServer(kind="plain")
    slow.behave(STALLS)
    nothing = Rates()
    async with working(bench, slow, fast, pace_of_slow=nothing, pace_of_fast=nothing) as run:
        await fast.until(probed(fast, 5))
        assert not fast.requests
        slow.probe_status = ILL
        await ends(run)
    assert attempts(bench) == [(1, "stale"), (1, "done")]


async def test_the_slow_one_may_still_be_first(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave(HELD)
    async with working(bench, slow, fast) as run:
        await fast.until(lambda: len(fast.requests) == 1)
        slow.release()
        await ends(run)
        await fast.until(lambda: fast.requests[0].ended == "disconnected")
    assert attempts(bench) == [(1, "done"), (1, "stale")]


async def test_if_both_answer_at_once_one_answer_is_the_result_and_is_told(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave(HELD)
    async with working(bench, slow, fast) as run:
        await fast.until(lambda: len(fast.requests) == 1)
        slow.release()
        fast.release()
        await ends(run)
    assert sorted(attempts(bench)) == [(1, "done"), (1, "stale")]
    assert sum(isinstance(event, Answered) for event in bench.events) == 1


async def test_if_the_second_fails_the_first_is_waited_for_and_no_third_one_asked(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave_always(BREAKS_OFF)
    async with working(bench, slow, fast) as run:
        await fast.until(lambda: len(fast.requests) == 1)
        await fast.until(probed(fast, 5))
        assert attempts(bench) == [(1, None), (1, "broken")]
        assert prompt(bench) == ("leased", 1, 0, 0)
        assert len(fast.requests) == 1
        slow.release()
        await ends(run)
    assert attempts(bench) == [(1, "done"), (1, "broken")]
    assert prompt(bench) == ("done", 1, 0, 0)


async def test_if_the_first_fails_the_second_answers(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(FAILS_LATER)
    fast.behave(HELD)
    async with working(bench, slow, fast, max_retries=0) as run:
        await fast.until(lambda: len(fast.requests) == 1)
        slow.release()
        await slow.until(lambda: slow.requests[0].ended == "failed")
        fast.release()
        await ends(run)
    assert attempts(bench) == [(1, "broken"), (1, "done")]
    assert prompt(bench) == ("done", 1, 0, 0)
    # No retry would have been left, yet it was not the end of the prompt.
    assert [event.final for event in bench.events if isinstance(event, TriedInVain)] == [False]


async def test_if_both_fail_the_prompt_goes_back_once_and_is_charged_once(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(FAILS_LATER)
    fast.behave(BREAKS_OFF)
    async with working(bench, slow, fast) as run:
        await fast.until(lambda: len(fast.requests) == 1)
        slow.release()
        await ends(run)
    assert sorted(attempts(bench)) == [(1, "broken"), (1, "broken"), (2, "done")]
    assert prompt(bench) == ("done", 2, 1, 0)


async def test_if_only_the_first_to_fail_is_to_blame_for_it_the_prompt_is_charged_nevertheless(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave(BREAKS_OFF)
    async with working(bench, slow, fast) as run:
        await fast.until(lambda: len(fast.requests) == 1 and fast.requests[0].ended is not None)
        await slow.stop()
        await ends(run)
    assert attempts(bench)[:2] == [(1, "lost"), (1, "broken")]
    assert prompt(bench) == ("done", 2, 1, 1)


async def test_a_prompt_that_is_cancelled_is_stopped_at_both(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave(HELD)

    def cancel(tx: Tx) -> None:
        assert request_cancel(tx, 1, 5.0)
        assert cancel_some(tx, 1, 5.0) == 1

    async with working(bench, slow, fast) as run:
        await fast.until(lambda: len(fast.requests) == 1)
        await bench.elsewhere(cancel)
        await ends(run)
        for server in (slow, fast):
            await server.until(lambda server=server: server.requests[0].ended == "disconnected")
    assert attempts(bench) == [(1, "released"), (1, "released")]
    assert prompt(bench) == ("cancelled", 1, 0, 0)


async def test_told_to_stop_at_once_both_are_stopped_and_the_prompt_goes_back_uncharged(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave(HELD)
    async with working(bench, slow, fast):
        await fast.until(lambda: len(fast.requests) == 1)
    assert {server.requests[0].ended for server in (slow, fast)} == {"disconnected"}
    assert attempts(bench) == [(1, "released"), (1, "released")]
    assert prompt(bench) == ("pending", 1, 0, 0)


@pytest.mark.parametrize("what", ["failures", "losses"])
async def test_what_has_failed_or_been_lost_before_is_asked_of_one_worker_alone(bench: Bench, what: str) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    async with slow, fast:
        await knows(bench, slow, SLOW)
        await knows(bench, fast, FAST)
        await store_job(bench.database, [paper(0)], ["What?"])
        await bench.change(f"UPDATE prompts SET {what} = 1")
        fast.probe_status = ILL
        async with bench.coordinator(slow, fast) as coordinator:
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await slow.until(lambda: len(slow.requests) == 1)
            fast.probe_status = WELL
            await fast.until(probed(fast, 10))
            assert not fast.requests
            slow.release()
            await ends(run)
    assert attempts(bench) == [(1, "done")]


async def test_nothing_more_is_sent_for_a_paused_job(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    async with working(bench, slow, fast, comes_up=False):
        # Another job is not due yet, so that the run goes on.
        await store_job(bench.database, [paper(1)], ["How?"], name="later")
        await bench.change("UPDATE prompts SET available_at = :due WHERE job_id = 2", due=time.time() + 300)
        await bench.elsewhere(lambda tx: pause(tx, 1, 5.0))
        await slow.until(probed(slow, 6))
        fast.probe_status = WELL
        await fast.until(probed(fast, 10))
        assert not fast.requests
        await bench.elsewhere(lambda tx: go_on(tx, [1]))
        await fast.until(lambda: len(fast.requests) == 1)


@pytest.mark.parametrize(("limit", "asked"), [(1, 0), (2, 1)])
async def test_a_second_asking_counts_for_the_limit_of_all(bench: Bench, limit: int, asked: int) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    fast.behave(HELD)
    async with slow, fast:
        await knows(bench, slow, SLOW)
        await knows(bench, fast, FAST)
        await store_job(bench.database, [paper(0)], ["What?"])
        # With both at hand, it would be given to the fast one.
        fast.probe_status = ILL
        async with bench.coordinator(slow, fast, seats_in_all=limit) as coordinator:
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await slow.until(lambda: len(slow.requests) == 1)
            fast.probe_status = WELL
            await fast.until(probed(fast, 5))
            assert len(fast.requests) == asked
            slow.release()
            await ends(run)
    assert len(attempts(bench)) == 1 + asked


async def test_what_does_not_fit_the_window_of_an_idle_worker_is_not_sent_to_it(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer(context=100)
    slow.behave(HELD)
    async with working(bench, slow, fast) as run:
        await fast.until(probed(fast, 10))
        assert not fast.requests
        slow.release()
        await ends(run)
    assert attempts(bench) == [(1, "done")]


async def test_of_many_idle_workers_one_that_can_hold_it_is_asked_though_others_are_faster(bench: Bench) -> None:
    slow = FakeServer(seconds_per_token=1.0, context=8192)
    narrow = [FakeServer(context=60) for _ in range(3)]
    wide = FakeServer(context=8192)
    for server in (*narrow, wide):
        server.probe_status = ILL
    async with AsyncExitStack() as stack:
        for server in (slow, *narrow, wide):
            await stack.enter_async_context(server)
            await knows(bench, server, SLOW if server is slow else FAST)
        await knows(bench, wide, replace(FAST, decode=FAST.decode / 2))
        await store_job(bench.database, [paper(0)], ["What?"])
        async with bench.coordinator(slow, *narrow, wide) as coordinator:
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await slow.until(lambda: len(slow.requests) == 1)
            for server in (*narrow, wide):
                server.probe_status = WELL
            await ends(run)
        assert [len(server.requests) for server in (*narrow, wide)] == [0, 0, 0, 1]
    bench.assert_consistent()


async def test_what_is_asked_alone_is_taken_from_its_worker_by_no_faster_one(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    async with slow, fast:
        await knows(bench, slow, SLOW)
        await knows(bench, fast, FAST)
        await store_job(bench.database, [paper(0)], ["What?"])
        await bench.change("UPDATE prompts SET losses = 3")
        async with bench.coordinator(slow, fast) as coordinator:
            await ends(asyncio.create_task(coordinator.run(lambda _: True)))
    assert attempts(bench) == [(1, "done")]


class OnlyTheFirst:
    """A policy that lets nobody but the first worker have new prompts."""

    def plan(self, machines: Sequence[Machine], _: Random) -> list[Ask]:
        first = [machine for machine in machines if machine.name == "w0"]
        return [Ask(machine.worker_id, machine.windows, 1, shared=True) for machine in first for _ in machine.seats]


async def test_whom_the_policy_spares_is_not_asked_a_second_time_either(bench: Bench) -> None:
    slow, fast = FakeServer(), FakeServer()
    slow.behave(HELD)
    async with slow, fast:
        await knows(bench, slow, SLOW)
        await knows(bench, fast, FAST)
        await store_job(bench.database, [paper(0)], ["What?"])
        async with bench.coordinator(slow, fast, policy=OnlyTheFirst()) as coordinator:
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await slow.until(lambda: len(slow.requests) == 1)
            await fast.until(probed(fast, 5))
            assert not fast.requests
            slow.release()
            await ends(run)
    assert len(attempts(bench)) == 1


async def test_a_worker_that_hangs_though_its_probes_are_answered_is_left_alone_after_three_prompts(
    bench: Bench,
) -> None:
    hung, well = FakeServer(), FakeServer(seconds_per_token=0.005)
    hung.behave_always(replace(HANGS, role_first=True))
    async with hung, well:
        await knows(bench, hung, FAST)
        await knows(bench, well, replace(FAST, decode=200))
        async with bench.coordinator(hung, well) as coordinator:
            run = asyncio.create_task(coordinator.run(None))
            for number in range(6):
                await store_job(bench.database, [paper(number)], ["What?"])
                await well.until(lambda answered=number + 1: len(well.requests) == answered, 15)  # type: ignore[misc]
            coordinator.stop()
            await ends(run)
        # One more, if the breaker's pause is over before the last job.
        assert 3 <= len(hung.requests) <= 4
        assert bench.rows("SELECT count(*) FROM answers") == [(6,)]
        bench.assert_consistent()
