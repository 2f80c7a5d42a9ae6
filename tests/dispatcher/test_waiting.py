"""What only a worker that is away could do: said once, waited for while it may come back, and given up else."""

import asyncio

import pytest

from distllm.domain.errors import NoWorkerError
from distllm.store.control import retry_some
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import GOOD, TOO_LONG, WRONG_KEY
from tests.fakes.server import FakeServer


async def test_a_paper_that_only_a_worker_that_never_answered_may_hold_ends_the_run_with_the_figures(
    bench: Bench,
) -> None:
    await store_job(bench.database, [paper(0, words=900), paper(1)], ["What?"])
    async with FakeServer(context=700) as small, FakeServer(context=20_000) as large:
        await large.stop()
        with pytest.raises(NoWorkerError, match=r"1 prompt needs up to \d{4,} tokens.* 700.*w1: .*resume"):
            await bench.work(small, large, no_worker_limit=0.5)
    assert bench.rows("SELECT document FROM answers") == [("paper1.txt",)]
    assert bench.rows("SELECT state, failures FROM prompts ORDER BY id") == [("pending", 0), ("done", 0)]


async def test_a_worker_that_was_there_is_waited_for_and_that_is_said_once(bench: Bench) -> None:
    await store_job(bench.database, [paper(n, words=900) for n in range(3)] + [paper(9)], ["What?"])
    async with FakeServer(context=700) as small, FakeServer(context=20_000, seconds_per_token=0.05) as large:
        run = asyncio.create_task(bench.work(small, large, no_worker_limit=0.3))
        await large.until(lambda: len(large.requests) == 1)
        await large.stop()
        async with asyncio.timeout(10):
            while not bench.said():  # noqa: ASYNC110 - a listener sets no event
                await asyncio.sleep(0.02)
        assert not run.done()
        large.seconds_per_token = 0.0
        await large.start()
        await run
    [text] = [text for text in bench.said() if "window" in text]
    assert "here are 700" in text
    assert "w1" in text
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 4)]
    bench.assert_consistent()


async def test_a_job_for_a_model_that_nobody_has_is_told_of_while_another_is_worked(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"], model="gone-model", name="gone")
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?"], name="here")
    async with FakeServer(seconds_per_token=0.1) as server:
        with pytest.raises(NoWorkerError, match=r"w0 has not the model gone-model \(it has: fake-model\)"):
            await bench.work(server, no_worker_limit=0.5)
    assert bench.rows("SELECT job, state FROM job_progress ORDER BY job_id") == [
        ("gone", "pending"),
        ("here", "completed"),
    ]
    assert len([text for text in bench.said() if "gone-model" in text]) <= 1


async def test_a_model_that_comes_back_is_said_to_be_missing_once(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], [f"What {n}?" for n in range(8)])
    async with FakeServer(seconds_per_token=0.05) as server:
        run = asyncio.create_task(bench.work(server, no_worker_limit=0.3))
        await server.until(lambda: len(server.requests) >= 1)
        server.models = ("other-model",)
        async with asyncio.timeout(10):
            while not bench.said():  # noqa: ASYNC110 - a listener sets no event
                await asyncio.sleep(0.02)
        server.models = ("fake-model",)
        await run
    assert len(bench.said()) == 1
    assert "has not the model fake-model (it has: other-model)" in bench.said()[0]
    bench.assert_consistent()


async def test_what_the_workers_at_hand_refuse_waits_for_the_one_that_is_away(bench: Bench) -> None:
    await store_job(bench.database, [paper(0), paper(1)], ["What?"])
    async with FakeServer() as small, FakeServer() as large:
        small.behave(TOO_LONG)
        await large.stop()
        run = asyncio.create_task(bench.work(small, large))
        await small.until(lambda: len(small.requests) == 2)
        await large.start()
        await run
        assert len(large.requests) == 1
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 2)]
    bench.assert_consistent()


async def test_what_waits_for_a_worker_that_comes_back_without_the_model_fails_with_the_refusal(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?"])
    async with FakeServer(seconds_per_token=0.1) as small, FakeServer(models=("other-model",)) as other:
        small.behave_for("paper5word", TOO_LONG)
        run = asyncio.create_task(bench.work(small, other))
        await small.until(lambda: len(small.requests) == 1)
        await other.stop()
        await small.until(lambda: any(seen.ended == "failed" for seen in small.requests))
        await other.start()
        await run
        assert not other.requests
    assert bench.rows("SELECT state, done, failed FROM job_progress") == [("failed", 5, 1)]
    assert "exceeds the available context size" in bench.rows("SELECT error FROM failures")[0][0]
    bench.assert_consistent()


async def test_a_worker_that_came_up_between_two_looks_is_looked_at_before_the_run_gives_up(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.probe_status = 503
        run = asyncio.create_task(bench.work(server, no_worker_limit=0.6, health_check_interval=30.0))
        # The next look is a second after this one, and the run first thinks of giving up in between.
        await server.until(lambda: server.probes == 2)
        server.probe_status = 200
        await run
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 1)]
    bench.assert_consistent()


async def test_what_no_window_holds_fails_again_when_it_is_retried_during_the_run(bench: Bench) -> None:
    job = await store_job(bench.database, [paper(0, words=900), *(paper(n) for n in range(1, 6))], ["What?"])
    async with FakeServer(context=700, seconds_per_token=0.1) as server:
        run = asyncio.create_task(bench.work(server))
        await server.until(lambda: len(server.requests) == 2)
        assert bench.rows("SELECT failed FROM job_progress") == [(1,)]
        await bench.elsewhere(lambda tx: retry_some(tx, job, 3.0))
        assert bench.rows("SELECT failed FROM job_progress") == [(0,)]
        await run
    assert bench.rows("SELECT state, done, failed FROM job_progress") == [("failed", 5, 1)]
    bench.assert_consistent()


@pytest.mark.parametrize("probed_every", [0.1, 5.0])
async def test_a_key_that_was_never_right_ends_the_run_in_the_words_of_the_server(
    bench: Bench, probed_every: float
) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        server.behave_always(WRONG_KEY)
        with pytest.raises(NoWorkerError, match=r"w0: .*401.*Invalid API Key.*distllm resume"):
            await bench.work(server, no_worker_limit=1.0, health_check_interval=probed_every)
    bench.assert_consistent()


async def test_a_key_that_is_refused_midway_is_waited_for_until_it_is_right_again(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(4)], ["What?"])
    async with FakeServer() as server:
        server.behave(GOOD, GOOD)
        server.behave_always(WRONG_KEY)
        run = asyncio.create_task(bench.work(server, no_worker_limit=0.3, health_check_interval=0.5))
        async with asyncio.timeout(10):
            while not bench.said():  # noqa: ASYNC110 - a listener sets no event
                await asyncio.sleep(0.02)
        assert not run.done()
        server.behave_always(GOOD)
        await run
    assert all("401" in text and "Invalid API Key" in text for text in bench.said())
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 4)]
    bench.assert_consistent()
