"""Where prompts go: to workers that have the model and the room, within every limit."""

from collections.abc import Callable

import pytest

from distllm.balancer.policies import POLICIES
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import HALVED
from tests.fakes.server import FakeServer

PROSE = "it has a few plain words in it and no more " * 12
"""One token for each word by the fake's count, so that half of them are fewer than they can be."""


def watch(*servers: FakeServer) -> Callable[[], tuple[int, dict[int, int]]]:
    """Note the most requests in flight, in all and for each server by its place."""
    most, each_most = 0, dict.fromkeys(range(len(servers)), 0)

    def note(_: object) -> None:
        nonlocal most
        running = [sum(seen.ended is None for seen in server.requests) for server in servers]
        most = max(most, sum(running))
        for place, count in enumerate(running):
            each_most[place] = max(each_most[place], count)

    for server in servers:
        server._on_request = note
    return lambda: (most, each_most)


@pytest.mark.parametrize("policy", POLICIES)
async def test_no_worker_has_more_in_flight_than_its_slots(bench: Bench, policy: str) -> None:
    await store_job(bench.database, [paper(n) for n in range(12)], ["What?", "How?"])
    async with FakeServer(slots=1, seconds_per_token=0.002) as one, FakeServer(slots=3, seconds_per_token=0.002) as two:
        seen = watch(one, two)
        await bench.work(one, two, policy=POLICIES[policy]())
        each = seen()[1]
        assert each[0] <= 1
        assert 2 <= each[1] <= 3
        assert len(one.requests) + len(two.requests) == 24
    bench.assert_consistent()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_are_in_flight_than_the_limit_of_all(bench: Bench, policy: str, limit: int) -> None:
    await store_job(bench.database, [paper(n) for n in range(10)], ["What?", "How?", "Why?"])
    async with FakeServer(slots=4, seconds_per_token=0.001) as one, FakeServer(slots=4, seconds_per_token=0.001) as two:
        seen = watch(one, two)
        await bench.work(one, two, policy=POLICIES[policy](), seats_in_all=limit)
        assert seen()[0] <= limit
        assert len(one.requests) + len(two.requests) == 30
    bench.assert_consistent()


@pytest.mark.parametrize("policy", POLICIES)
async def test_only_workers_that_have_the_model_are_asked_by_whatever_name(bench: Bench, policy: str) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?"], model="llama")
    async with (
        FakeServer(model="llama3.1:8b") as one,
        FakeServer(model="other") as two,
        FakeServer(models=("other", "meta-llama"), model="other") as three,
    ):
        await bench.work(one, two, three, policy=POLICIES[policy](), aliases=[("llama", "llama3.1:8b", "meta-llama")])
        assert not two.requests
        assert {seen.body["model"] for seen in one.requests} <= {"llama3.1:8b"}
        assert {seen.body["model"] for seen in three.requests} <= {"meta-llama"}
        assert len(one.requests) + len(three.requests) == 6
    bench.assert_consistent()


@pytest.mark.parametrize("policy", POLICIES)
async def test_in_a_mixed_fleet_each_prompt_goes_where_it_fits_or_fails_with_both_figures(
    bench: Bench, policy: str
) -> None:
    papers = [paper(n, words) for n, words in enumerate([60, 300, 60, 300, 3000, 60])]
    await store_job(bench.database, papers, ["What?", "How?"])
    async with FakeServer(context=900) as small, FakeServer(context=4000, seconds_per_token=0.005) as large:
        await bench.work(small, large, policy=POLICIES[policy]())
        sent = small.requests + large.requests
        assert all(seen.ended == "answered" for seen in sent)
        assert not any("paper4word" in seen.system for seen in sent)
        assert not any("word299" in seen.system for seen in small.requests)
    assert bench.rows("SELECT DISTINCT document, attempts FROM failures") == [("paper4.txt", 0)]
    for needs, error in bench.rows("SELECT p.tokens, p.error FROM prompts p WHERE state = 'failed'"):
        assert str(needs) in error
        assert "4000" in error
    assert bench.rows("SELECT count(*) FROM answers") == [(10,)]
    bench.assert_consistent()


async def test_what_one_server_cuts_is_asked_of_another_and_the_cut_answer_is_no_result(bench: Bench) -> None:
    await store_job(bench.database, [PROSE, PROSE + "again"], ["What?"])
    async with FakeServer(kind="plain") as cutting, FakeServer(seconds_per_token=0.05) as whole:
        cutting.behave_always(HALVED)
        await bench.work(cutting, whole, max_retries=0)
        assert cutting.requests
    assert bench.rows("SELECT DISTINCT worker FROM answers") == [("w1",)]
    assert bench.rows("SELECT count(*), sum(failures) FROM prompts WHERE state = 'done'") == [(2, 0)]
    bench.assert_consistent()
