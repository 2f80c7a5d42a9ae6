"""A coordinator stops in order, takes over what the dead left, and gives up what is taken from it."""

import asyncio

from distllm.domain.models import Ask
from distllm.store.attempts import Sent, record_sent
from distllm.store.claims import claim
from distllm.store.control import cancel_some, go_on, pause, request_cancel
from distllm.store.fleet import know_worker, register
from distllm.store.tx import Tx
from tests.dispatcher.conftest import MODEL, Bench, paper, store_job
from tests.fakes.behaviour import HANGS, STALLS, Behaviour
from tests.fakes.server import FakeServer


async def test_told_to_stop_it_finishes_what_is_in_flight_and_gives_the_rest_back(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(5)], ["What?", "How?"])
    async with FakeServer(seconds_per_token=0.02) as server, bench.coordinator(server) as coordinator:
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) >= 2)
        coordinator.stop()
        async with asyncio.timeout(5):
            await run
        asked = len(server.requests)
    assert bench.rows("SELECT count(*) FROM results") == [(asked,)]
    assert bench.rows("SELECT DISTINCT state, failures FROM prompts WHERE state <> 'done'") == [("pending", 0)]
    bench.assert_consistent()


async def test_told_to_stop_at_once_it_closes_its_sockets_and_charges_nothing(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?", "How?"])
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        server.behave(STALLS)
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) == 1)
        coordinator.abort()
        async with asyncio.timeout(5):
            await run
        await server.until(lambda: server.requests[0].ended == "disconnected")
    assert bench.rows("SELECT DISTINCT state, failures, losses FROM prompts") == [("pending", 0, 0)]
    assert bench.rows("SELECT outcome FROM attempts") == [("released",)]
    bench.assert_consistent()


async def test_leases_of_a_dead_coordinator_are_taken_back_at_once(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?", "How?"])
    dead = await bench.database.write(lambda tx: register(tx, "host", 1, 3.0))
    worker = await bench.database.write(lambda tx: know_worker(tx, "http://gone:1", "gone", "openai"))
    asks = [Ask(worker, {MODEL: 10_000}, 5)] * 4
    groups = await bench.database.write(lambda tx: claim(tx, asks, [], dead, 3.0))
    assert len(groups) == 4
    sent = [Sent((dead << 32) + n, group.leases[0], worker, dead, 3.0, 100) for n, group in enumerate(groups)]
    await bench.database.write(lambda tx: record_sent(tx, sent))
    async with FakeServer() as server:
        await bench.work(server, seconds=5)
    assert bench.rows("SELECT count(*) FROM results") == [(12,)]
    # What had not been sent had no part in the death.
    assert bench.rows("SELECT sum(losses), sum(failures) FROM prompts") == [(4, 0)]
    bench.assert_consistent()


async def test_a_prompt_that_is_cancelled_elsewhere_is_stopped_at_the_server(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    await store_job(bench.database, [paper(1)], ["How?"], name="other")
    async with FakeServer(slots=2) as server, bench.coordinator(server) as coordinator:
        server.behave(HANGS, HANGS)
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) == 2)

        def cancel(tx: Tx) -> None:
            assert request_cancel(tx, 1, 5.0)
            assert cancel_some(tx, 1, 5.0) == 1

        await bench.elsewhere(cancel)
        await server.until(lambda: any(seen.ended == "disconnected" for seen in server.requests))
        ended = [seen for seen in server.requests if seen.ended == "disconnected"]
        assert [seen.question for seen in ended] == ["What?"]
        coordinator.abort()
        await run
    assert bench.rows("SELECT state FROM prompts ORDER BY id") == [("cancelled",), ("pending",)]


async def test_what_is_leased_ahead_of_a_cancelled_job_is_never_sent(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?", "How?", "Why?"])
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        server.behave(HANGS)
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) == 1)

        def cancel(tx: Tx) -> None:
            assert request_cancel(tx, 1, 5.0)
            assert cancel_some(tx, 1, 5.0) == 3

        await bench.elsewhere(cancel)
        async with asyncio.timeout(5):
            await run
        assert [seen.ended for seen in server.requests] == ["disconnected"]
    assert bench.rows("SELECT DISTINCT state FROM prompts") == [("cancelled",)]
    assert bench.rows("SELECT state FROM job_progress") == [("cancelled",)]


async def test_a_paused_job_ends_what_is_in_flight_and_sends_nothing_more(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?", "How?", "Why?"])
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        server.behave(Behaviour(first_token_after=1.0))
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) == 1)
        await bench.elsewhere(lambda tx: pause(tx, 1, 5.0))
        async with asyncio.timeout(5):
            await run
        assert [seen.ended for seen in server.requests] == ["answered"]
        assert bench.rows("SELECT state, done, pending FROM job_progress") == [("paused", 1, 2)]
        bench.assert_consistent()
        await bench.elsewhere(lambda tx: go_on(tx, [1]))
        await bench.work(server)
    assert bench.rows("SELECT state, done FROM job_progress") == [("completed", 3)]


async def test_a_job_that_is_submitted_meanwhile_is_worked_too(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(3)], ["What?"])
    async with FakeServer(seconds_per_token=0.02) as server:
        work = asyncio.create_task(bench.work(server))
        await server.until(lambda: len(server.requests) >= 1)
        await store_job(bench.database, [paper(9)], ["How?"], name="later")
        await work
        assert len(server.requests) == 4
    bench.assert_consistent()


async def test_told_to_stop_while_it_leases_it_gives_everything_back(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(30)], ["What?", "How?"])
    async with FakeServer(slots=4, seconds_per_token=0.002) as server:
        for wanted in (1, 5, 9):
            async with bench.coordinator(server) as coordinator:
                run = asyncio.create_task(coordinator.run(lambda _: True))
                before = len(server.requests)
                await server.until(lambda before=before, wanted=wanted: len(server.requests) >= before + wanted)
                coordinator.stop()
                async with asyncio.timeout(5):
                    await run
            bench.assert_consistent()


async def test_told_twice_in_one_breath_it_goes_at_once(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        server.behave(HANGS)
        run = asyncio.create_task(coordinator.run(lambda _: True))
        await server.until(lambda: len(server.requests) >= 1)
        coordinator.stop()
        coordinator.abort()
        async with asyncio.timeout(5):
            await run
    assert bench.rows("SELECT ended_at IS NOT NULL FROM coordinators") == [(1,)]
    bench.assert_consistent()
