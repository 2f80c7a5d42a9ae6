"""What a server does badly is retried, waited for or given up as the table of error classes says."""

import asyncio

import pytest

from distllm.domain.errors import NoWorkerError
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import (
    BREAKS_OFF,
    BUSY,
    CRASHED,
    EMPTY,
    POOL_FULL,
    RESET,
    TOO_LONG,
    UNKNOWN_IDENTIFIER,
    WRONG_KEY,
    Behaviour,
)
from tests.fakes.server import FakeServer


async def test_a_broken_answer_is_asked_again_and_costs_a_retry(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave(BREAKS_OFF)
        await bench.work(server)
    assert bench.rows("SELECT state, failures FROM prompts") == [("done", 1)]
    assert bench.rows("SELECT outcome FROM attempts ORDER BY id") == [("broken",), ("done",)]
    assert bench.rows("SELECT attempts FROM answers") == [(2,)]
    bench.assert_consistent()


async def test_a_prompt_fails_once_its_retries_are_used_up(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave_always(EMPTY)
        await bench.work(server, max_retries=1)
    assert bench.rows("SELECT state FROM job_progress") == [("failed",)]
    [(document, prompt, attempts, error)] = bench.rows("SELECT document, prompt, attempts, error FROM failures")
    assert (document, prompt, attempts) == ("paper0.txt", "q0", 2)
    assert error
    bench.assert_consistent()


@pytest.mark.parametrize("behaviour", [BUSY, POOL_FULL, RESET], ids=["busy", "pool full", "reset"])
async def test_a_worker_that_cannot_take_a_prompt_now_costs_it_nothing(bench: Bench, behaviour: object) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave(behaviour)
        await bench.work(server, max_retries=0)
    assert bench.rows("SELECT state, failures FROM prompts") == [("done", 0)]
    bench.assert_consistent()


async def test_what_no_window_holds_is_never_sent_and_fails_with_the_figures(bench: Bench) -> None:
    await store_job(bench.database, [paper(0, words=2000), paper(1)], ["What?"])
    async with FakeServer(context=500) as server:
        await bench.work(server)
        assert len(server.requests) == 1
    [(document, attempts, error)] = bench.rows("SELECT document, attempts, error FROM failures")
    assert (document, attempts) == ("paper0.txt", 0)
    assert "500" in error
    assert bench.rows("SELECT document FROM answers") == [("paper1.txt",)]
    bench.assert_consistent()


async def test_a_long_paper_goes_where_it_fits(bench: Bench) -> None:
    await store_job(bench.database, [paper(0, words=900), *(paper(n) for n in range(1, 6))], ["What?"])
    async with FakeServer(context=700) as small, FakeServer(context=20_000) as large:
        await bench.work(small, large)
        assert any("paper0word0" in seen.system for seen in large.requests)
        assert not any("paper0word0" in seen.system for seen in small.requests)
    bench.assert_consistent()


async def test_a_server_that_refuses_the_input_is_not_asked_again(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as one, FakeServer() as two:
        one.behave_always(TOO_LONG)
        two.behave_always(TOO_LONG)
        await bench.work(one, two)
        assert len(one.requests) == len(two.requests) == 1
    assert bench.rows("SELECT state FROM prompts") == [("failed",)]
    bench.assert_consistent()


async def test_a_worker_that_dies_midway_loses_nothing_and_comes_back_by_itself(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(20)], ["What?", "How?"])
    async with FakeServer(seconds_per_token=0.01) as one, FakeServer(seconds_per_token=0.01) as two:
        work = asyncio.create_task(bench.work(one, two))
        await one.until(lambda: len(one.requests) >= 3)
        await one.stop()
        await two.until(lambda: len(two.requests) >= 8)
        asked_before = len(one.requests)
        await one.start()
        await one.until(lambda: len(one.requests) > asked_before, seconds=15)
        await work
    assert bench.rows("SELECT count(*) FROM results") == [(40,)]
    bench.assert_consistent()


async def test_a_crashing_worker_is_left_alone_while_the_other_goes_on(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(10)], ["What?"])
    async with FakeServer() as bad, FakeServer(seconds_per_token=0.005) as good:
        bad.behave_always(CRASHED)
        await bench.work(bad, good)
        assert len(bad.requests) < 10
    assert bench.rows("SELECT count(*) FROM results") == [(10,)]
    bench.assert_consistent()


async def test_nobody_to_ask_ends_with_the_reason_and_loses_nothing(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        await server.stop()
        with pytest.raises(NoWorkerError, match="resume"):
            await bench.work(server, no_worker_limit=0.5)
    assert bench.rows("SELECT state, failures, lease FROM prompts") == [("pending", 0, 0)]


async def test_a_wrong_key_is_said_and_charged_to_no_prompt(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave_always(WRONG_KEY)
        server.probe_status = 401
        with pytest.raises(NoWorkerError, match="w0"):
            await bench.work(server, no_worker_limit=0.5)
    assert bench.rows("SELECT state, failures FROM prompts") == [("pending", 0)]


async def test_a_job_for_a_model_that_nobody_has_is_not_sent_to_another(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"], model="llama3.1:8b")
    async with FakeServer() as server:
        with pytest.raises(NoWorkerError, match=r"llama3\.1:8b.*fake-model"):
            await bench.work(server, no_worker_limit=0.5)
        assert not server.requests


async def test_names_that_mean_one_model_are_one(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"], model="llama-8b")
    async with FakeServer(model="meta-llama-3.1-8b-instruct") as server:
        await bench.work(server, aliases=[("llama-8b", "llama3.1:8b", "meta-llama-3.1-8b-instruct")])
        assert server.requests[0].body["model"] == "meta-llama-3.1-8b-instruct"
    assert bench.rows("SELECT model FROM answers") == [("meta-llama-3.1-8b-instruct",)]


async def test_any_takes_the_workers_own_model(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"], model="any")
    async with FakeServer(model="its-own") as server:
        await bench.work(server)
    assert bench.rows("SELECT model FROM answers") == [("its-own",)]


async def test_a_model_that_is_swapped_midway_ends_with_the_reason_and_loses_nothing(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], [f"What {n}?" for n in range(10)])
    async with FakeServer(seconds_per_token=0.05) as server:
        work = asyncio.create_task(bench.work(server, no_worker_limit=0.5))
        await server.until(lambda: len(server.requests) >= 2)
        server.models = ("other-model",)
        await server.until(lambda: server.probes >= 4)
        server.models = ("fake-model",)
        await work
    assert bench.rows("SELECT count(*) FROM results") == [(10,)]
    bench.assert_consistent()


async def test_a_paper_is_not_failed_because_its_only_worker_refused_its_model_for_a_moment(bench: Bench) -> None:
    await store_job(bench.database, [paper(0, words=900), paper(1, words=900), paper(2)], ["What?"])
    async with FakeServer(context=700) as small, FakeServer(context=20_000) as large:
        large.behave(UNKNOWN_IDENTIFIER)
        await bench.work(small, large)
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 3)]
    bench.assert_consistent()


async def test_a_server_that_is_busy_is_not_asked_over_and_over(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], [f"What {n}?" for n in range(30)])
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        server.behave_always(BUSY)
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) >= 3, seconds=15)
        assert bench.rows("SELECT count(*) FROM attempts")[0][0] <= 4
        coordinator.abort()
        await run
    bench.assert_consistent()


@pytest.mark.parametrize(("kind", "proof"), [("llamacpp", "proven"), ("plain", "unproven")])
async def test_only_a_window_that_the_server_told_proves_that_nothing_was_cut(
    bench: Bench, kind: str, proof: str
) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer(kind=kind) as server:
        await bench.work(server)
    assert bench.rows("SELECT proof FROM answers") == [(proof,)]


async def test_counts_and_names_that_no_database_can_hold_harm_no_answer(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?", "How?"])
    body = {
        "model": "x\ud800",
        "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2**70, "completion_tokens": 3},
    }
    async with FakeServer() as server:
        server.behave(Behaviour(body=body))
        await bench.work(server)
    assert bench.rows("SELECT count(*) FROM results") == [(2,)]
    bench.assert_consistent()
