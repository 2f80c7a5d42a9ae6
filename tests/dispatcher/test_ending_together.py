"""Uneven workers end together: the slow one takes no paper that it would be waited for with, and is helped out."""

import asyncio
from collections import Counter

from tests.dispatcher.conftest import FAST, SLOW, Bench, knows, paper, store_job
from tests.fakes.behaviour import TOO_LONG
from tests.fakes.server import FakeServer

QUESTIONS = ["What is asked?", "How was it done?", "What was found?", "What is weak?"]


# Long enough to tell how fast it is written.
ANSWER = "it is about twelve words long and says nothing of its paper"


def uneven() -> tuple[FakeServer, FakeServer]:
    """A worker, and one that is ten times as slow."""
    return (
        FakeServer(answer=lambda _: ANSWER, seconds_per_prompt_token=0.0001, seconds_per_token=0.002),
        FakeServer(answer=lambda _: ANSWER, seconds_per_prompt_token=0.001, seconds_per_token=0.02),
    )


async def test_the_slow_worker_takes_no_paper_that_it_would_be_waited_for_with(bench: Bench) -> None:
    fast, slow = uneven()
    async with fast, slow:
        # Until both have told their pace, weights decide.
        await store_job(bench.database, [paper(n, 80) for n in range(8)], ["What?"], name="first")
        await bench.work(fast, slow)
        assert slow.requests
        await store_job(bench.database, [paper(100, 400), *(paper(n, 80) for n in range(20, 30))], QUESTIONS)
        await bench.work(fast, slow)
        long = Counter(
            "fast" if server is fast else "slow"
            for server in (fast, slow)
            for seen in server.requests
            if "paper100word0" in seen.system
        )
        assert long == {"fast": len(QUESTIONS)}
    bench.assert_consistent()


async def test_a_worker_of_which_nothing_is_known_begins_with_a_short_paper(bench: Bench) -> None:
    fast, slow = uneven()
    async with fast, slow:
        await store_job(bench.database, [paper(100, 400), *(paper(n, 80) for n in range(6))], QUESTIONS)
        await bench.work(fast, slow)
        assert fast.requests
        assert slow.requests
        assert all("paper100word0" not in server.requests[0].system for server in (fast, slow))
        long = {id(server) for server in (fast, slow) for seen in server.requests if "paper100word0" in seen.system}
        assert id(fast) in long
    bench.assert_consistent()


async def test_who_knows_nothing_of_many_seats_tries_one_while_papers_are_few(bench: Bench) -> None:
    fast, slow = uneven()
    at_first = 0

    def count(_: object) -> None:
        nonlocal at_first
        if not any(seen.ended for seen in slow.requests):
            at_first = max(at_first, sum(seen.ended is None for seen in slow.requests))

    slow._on_request = count
    async with fast, slow:
        await store_job(bench.database, [paper(n, 100) for n in range(8)], QUESTIONS)
        await bench.work(fast, slow, seats=4)
        assert slow.requests
        assert at_first == 1
    assert bench.rows("SELECT count(*) FROM results") == [(32,)]
    bench.assert_consistent()


async def test_no_help_goes_beyond_the_limit_of_all(bench: Bench) -> None:
    fast, slow = uneven()
    most = 0

    def count(_: object) -> None:
        nonlocal most
        most = max(most, sum(seen.ended is None for server in (fast, slow) for seen in server.requests))

    fast._on_request = slow._on_request = count
    async with fast, slow:
        await store_job(bench.database, [paper(n, 80) for n in range(8)], ["What?"], name="first")
        await bench.work(fast, slow)
        assert slow.requests
        most, fast.slot_count, slow.slot_count = 0, 4, 4
        await store_job(bench.database, [paper(n, 300) for n in range(100, 106)], QUESTIONS)
        await bench.work(fast, slow, seats=4, seats_in_all=1)
        assert most == 1
    assert bench.rows("SELECT count(*) FROM results") == [(32,)]
    bench.assert_consistent()


async def test_an_idle_worker_takes_over_what_a_slow_one_has_not_sent(bench: Bench) -> None:
    fast, slow = uneven()
    async with fast, slow:
        # Nothing is known of their pace, so each takes a paper; the fast one learns what it can help with.
        questions = [f"What is said of {n}?" for n in range(12)]
        await store_job(bench.database, [paper(100, 300), paper(101, 300)], questions)
        await bench.work(fast, slow)
        papers = [{seen.system for seen in server.requests} for server in (fast, slow)]
        assert len(papers[1]) == 1
        assert papers[0] > papers[1]
        assert len(fast.requests) > len(questions) > len(slow.requests)
        assert len(fast.requests) + len(slow.requests) == 24
    assert bench.rows("SELECT count(*) FROM results") == [(24,)]
    assert bench.rows("SELECT sum(failures) + sum(losses) FROM prompts") == [(0,)]
    bench.assert_consistent()


async def test_what_only_the_slow_worker_can_hold_is_asked_of_it(bench: Bench) -> None:
    fast, slow = FakeServer(context=900), FakeServer(context=8000)
    async with fast, slow:
        await knows(bench, fast, FAST)
        await knows(bench, slow, SLOW)
        await store_job(bench.database, [paper(0, 300), paper(1)], ["What?", "How?"])
        await bench.work(fast, slow)
    assert len(slow.requests) == 2
    bench.assert_consistent()


async def test_what_the_fast_worker_has_refused_is_asked_of_the_slow_one(bench: Bench) -> None:
    fast, slow = FakeServer(tells=None), FakeServer()
    fast.behave_always(TOO_LONG)
    async with fast, slow:
        await knows(bench, fast, FAST)
        await knows(bench, slow, SLOW)
        await store_job(bench.database, [paper(0)], ["What?", "How?"])
        await bench.work(fast, slow)
    assert {seen.question for seen in slow.requests} == {"What?", "How?"}
    assert bench.rows("SELECT count(*) FROM results") == [(2,)]
    bench.assert_consistent()


async def test_a_job_that_waits_for_a_model_that_nobody_has_spoils_the_placing_of_no_other(bench: Bench) -> None:
    fast, slow = FakeServer(), FakeServer()
    async with fast, slow:
        await knows(bench, fast, FAST)
        await knows(bench, slow, SLOW)
        await store_job(bench.database, [paper(9)], ["What?"], model="nobody-has-it")
        job_id = await store_job(bench.database, [paper(0), paper(1)], ["What?", "How?"])
        async with bench.coordinator(fast, slow) as coordinator, asyncio.timeout(20):
            await coordinator.run(lambda wanted: wanted == job_id)
    assert (len(fast.requests), len(slow.requests)) == (4, 0)
    bench.assert_consistent()
