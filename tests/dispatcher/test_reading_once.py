"""A paper is read once: its questions stay together, whichever job asks them."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from distllm.balancer.policies import Weighted
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.server import FakeServer

QUESTIONS = ["What is asked?", "How was it done?", "What was found?", "What is weak?", "What is new?"]


def read_anew(server: FakeServer) -> int:
    return sum(seen.prompt_tokens - seen.cached_tokens for seen in server.requests)


def servers_of_papers(*servers: FakeServer) -> dict[str, set[int]]:
    places: dict[str, set[int]] = {}
    for index, server in enumerate(servers):
        for seen in server.requests:
            places.setdefault(seen.system, set()).add(index)
    return places


async def test_all_questions_about_one_paper_go_to_the_worker_that_read_it(bench: Bench) -> None:
    # Long enough to read that no paper is worth reading twice, however slowly a busy machine asks.
    await store_job(bench.database, [paper(n, 200) for n in range(6)], QUESTIONS)
    async with FakeServer() as one, FakeServer() as two:
        one.seconds_per_token = two.seconds_per_token = 0.001
        one.seconds_per_prompt_token = two.seconds_per_prompt_token = 0.0003
        await bench.work(one, two)
        places = servers_of_papers(one, two)
    assert len(places) == 6
    assert all(len(servers) == 1 for servers in places.values())
    assert len(one.requests) + len(two.requests) == 30
    assert one.requests
    assert two.requests
    bench.assert_consistent()


async def test_two_jobs_over_the_same_papers_read_each_paper_once(bench: Bench) -> None:
    papers = [paper(n, 200) for n in range(4)]
    await store_job(bench.database, papers, QUESTIONS[:3], name="research")
    await store_job(bench.database, papers, QUESTIONS[3:], name="analysis")
    async with FakeServer() as server:
        await bench.work(server)
        one_paper = min(seen.prompt_tokens for seen in server.requests)
        asked = Counter(seen.system for seen in server.requests)
        assert sorted(asked.values()) == [5, 5, 5, 5]
        order = [seen.system for seen in server.requests]
        assert sum(before != after for before, after in pairwise(order)) == 3
        assert read_anew(server) < 1.2 * 4 * one_paper
    bench.assert_consistent()


async def test_each_slot_of_a_server_keeps_its_own_paper(bench: Bench) -> None:
    await store_job(bench.database, [paper(n, 150) for n in range(8)], QUESTIONS)
    async with FakeServer(slots=4, seconds_per_token=0.001) as server:
        await bench.work(server)
        one_paper = min(seen.prompt_tokens for seen in server.requests)
        assert read_anew(server) < 1.2 * 8 * one_paper
    bench.assert_consistent()


async def test_what_a_worker_has_read_stays_with_it_over_a_restart(bench: Bench) -> None:
    await store_job(bench.database, [paper(n, 150) for n in range(20)], QUESTIONS)
    async with (
        FakeServer(slots=2, seconds_per_token=0.002) as one,
        FakeServer(slots=2, seconds_per_token=0.002) as two,
    ):
        for goal in (20, 40, 60):
            async with bench.coordinator(one, two) as coordinator:
                run = asyncio.create_task(coordinator.run(lambda _: True))
                await one.until(lambda goal=goal: len(one.requests) + len(two.requests) >= goal)  # type: ignore[misc]
                coordinator.abort()
                await run
        await bench.work(one, two)
        one_paper = min(seen.prompt_tokens for seen in one.requests)
        assert all(len(servers) == 1 for servers in servers_of_papers(one, two).values())
        assert read_anew(one) + read_anew(two) < 1.2 * 20 * one_paper
    bench.assert_consistent()


async def test_a_paper_that_was_read_before_a_restart_says_nothing_of_how_fast_a_silent_server_reads(
    bench: Bench,
) -> None:
    """Ollama counts what it had cached, and does not tell it."""

    def prefill() -> float:
        ((rate,),) = bench.rows("SELECT prefill_rate FROM worker_models")
        return float(rate)

    async with FakeServer(kind="ollama", slots=2, seconds_per_prompt_token=0.0005) as server:
        await store_job(bench.database, [paper(0, 150), paper(1, 150)], QUESTIONS[:1])
        await bench.work(server)
        assert prefill() == pytest.approx(2000)
        for question in QUESTIONS[1:3]:
            await store_job(bench.database, [paper(0, 150), paper(1, 150)], [question])
            await bench.work(server)
            assert server.requests[-1].cached_tokens > 100
            assert prefill() == pytest.approx(2000)
        server.seconds_per_prompt_token = 0.001
        await store_job(bench.database, [paper(0, 150), paper(2, 150)], QUESTIONS[3:4])
        await bench.work(server)
        assert 1000 < prefill() < 1900
    bench.assert_consistent()


async def test_the_weighted_policy_spreads_prompts_and_not_papers(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(4)], QUESTIONS)
    async with FakeServer(seconds_per_token=0.002) as one, FakeServer(seconds_per_token=0.002) as two:
        await bench.work(one, two, policy=Weighted())
        assert any(len(servers) == 2 for servers in servers_of_papers(one, two).values())
        assert len(one.requests) + len(two.requests) == 20
    bench.assert_consistent()


async def test_never_more_requests_in_flight_than_seats(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(10)], QUESTIONS[:2])
    async with FakeServer(slots=8, seconds_per_token=0.002) as server:
        most = 0

        def count(_: object) -> None:
            nonlocal most
            most = max(most, sum(seen.ended is None for seen in server.requests))

        server._on_request = count
        await bench.work(server, seats=3, seats_in_all=2)
        assert most <= 2
        assert len(server.requests) == 20


async def test_a_worker_that_dies_and_comes_back_costs_one_more_reading_of_what_it_had_begun(bench: Bench) -> None:
    await store_job(bench.database, [paper(n, 150) for n in range(12)], QUESTIONS)
    async with FakeServer(seconds_per_token=0.004) as one, FakeServer(seconds_per_token=0.004) as two:
        run = asyncio.create_task(bench.work(one, two, health_check_interval=0.1))
        for goal in (7, 18, 29):
            await one.until(lambda goal=goal: len(one.requests) + len(two.requests) >= goal)  # type: ignore[misc]
            await one.stop()
            await one.start()
        await run
        one_paper = min(seen.prompt_tokens for seen in one.requests)
        readings = (read_anew(one) + read_anew(two)) / one_paper
    assert readings < 1.2 * (12 + 3)
    bench.assert_consistent()
