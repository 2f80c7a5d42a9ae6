"""Who is well: by probes, by what arrives, and by itself again."""

import asyncio
from contextlib import AsyncExitStack

from distllm.dispatcher.probes import AT_ONCE
from distllm.domain.events import WorkerChanged
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import GOOD, HELD, STALLS, TOO_MANY, Behaviour, Ending
from tests.fakes.server import FakeServer


def changes(bench: Bench, worker: str) -> list[bool]:
    return [each.healthy for each in bench.events if isinstance(each, WorkerChanged) and each.worker == worker]


async def test_a_busy_worker_that_misses_its_probes_is_not_dead(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?", "How?"])
    async with FakeServer(seconds_per_token=0.15) as server:
        run = asyncio.create_task(bench.work(server, max_retries=0, health_check_interval=0.05))
        await server.until(lambda: len(server.requests) == 1)
        server.probe_status, before = 500, server.probes
        await server.until(lambda: server.probes >= before + 3)
        assert server.requests[0].ended is None
        server.probe_status = 200
        await run
        assert len(server.requests) == 2
    assert changes(bench, "w0") == [True]
    assert bench.rows("SELECT sum(failures), count(*) FROM prompts") == [(0, 2)]
    bench.assert_consistent()


async def test_an_idle_worker_that_misses_its_probe_is_left_out_until_it_is_well_again(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(30)], ["What?"])
    async with FakeServer() as ill, FakeServer(seconds_per_token=0.05) as well:
        ill.probe_status = 500
        run = asyncio.create_task(bench.work(ill, well, health_check_interval=0.1))
        await well.until(lambda: len(well.requests) >= 4 and ill.probes >= 2)
        assert not ill.requests
        ill.probe_status, well.seconds_per_token = 200, 0.1
        await ill.until(lambda: len(ill.requests) >= 1, seconds=15)
        await run
    assert changes(bench, "w0") == [False, True]
    assert bench.rows("SELECT count(*) FROM results") == [(30,)]
    bench.assert_consistent()


async def test_one_that_says_it_is_well_and_hangs_ends_at_its_limit_and_the_other_answers(bench: Bench) -> None:
    await store_job(bench.database, [paper(n, words=4) for n in range(3)], ["What?"])
    async with FakeServer() as hung, FakeServer(seconds_per_token=0.01) as well:
        hung.behave_always(Behaviour(tokens=0, role_first=False, ending=Ending.HANG))
        await bench.work(hung, well, request_timeout=0.2, seconds=30.0)
        assert hung.requests
        assert all(seen.ended == "disconnected" for seen in hung.requests)
        assert changes(bench, "w0") == [True]
    assert bench.rows("SELECT count(*), count(DISTINCT worker) FROM answers") == [(3, 1)]
    bench.assert_consistent()


async def test_one_that_hangs_prompt_after_prompt_is_left_alone_by_its_breaker(bench: Bench) -> None:
    await store_job(bench.database, [paper(n, words=4) for n in range(20)], ["What?"])
    async with FakeServer(slots=3) as hung, FakeServer(seconds_per_token=0.05) as well:
        hung.behave_always(Behaviour(tokens=0, role_first=False, ending=Ending.HANG))
        run = asyncio.create_task(bench.work(hung, well, request_timeout=0.2, health_check_interval=0.1, seconds=30.0))
        async with asyncio.timeout(10):
            while bench.rows("SELECT breaker FROM workers WHERE name = 'w0'") != [("open",)]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        # Three prompts have accused it, and two seats may have gone on before the third did.
        assert 3 <= len(hung.requests) <= 5
        assert bench.rows("SELECT healthy FROM workers WHERE name = 'w0'") == [(1,)]
        await run
    assert bench.rows("SELECT count(*), count(DISTINCT worker) FROM answers") == [(20, 1)]
    assert bench.rows("SELECT max(failures) FROM prompts") == [(1,)]
    bench.assert_consistent()


async def test_what_an_open_breaker_holds_goes_to_another_though_one_request_hangs_there(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(4)], [f"q{n}?" for n in range(6)])
    async with FakeServer(slots=4) as ill, FakeServer() as well:
        ill.behave(STALLS)
        ill.behave_always(Behaviour(status=500, body={"error": {"message": "it failed"}}))
        well.probe_status = 503
        async with bench.coordinator(ill, well) as coordinator:
            run = asyncio.create_task(coordinator.run(None))
            await ill.until(lambda: len(ill.requests) >= 4)
            well.probe_status = 200
            await well.until(lambda: len(well.requests) == 23)
            coordinator.abort()
            await run
    assert bench.rows("SELECT count(*) FROM results") >= [(22,)]
    bench.assert_consistent()


async def test_a_server_that_is_too_busy_beside_a_long_request_is_asked_again_when_that_has_ended(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(6)], ["What?"])
    async with FakeServer(slots=1, kind="plain") as server:
        server.behave(TOO_MANY, HELD)
        server.behave_always(TOO_MANY)
        async with bench.coordinator(server, seats=2) as coordinator:
            run = asyncio.create_task(coordinator.run(lambda _: True))
            await server.until(lambda: len(server.requests) == 2)
            before = server.probes
            await server.until(lambda: server.probes >= before + 3)
            assert len(server.requests) == 2
            server.behave_always(GOOD)
            server.release()
            async with asyncio.timeout(10):
                await run
    assert bench.rows("SELECT count(*) FROM results") == [(6,)]
    bench.assert_consistent()


async def test_a_server_that_is_killed_and_comes_back_on_its_port_is_used_again_by_itself(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(4)], ["What?", "How?"])
    async with FakeServer(seconds_per_token=0.02) as server:
        run = asyncio.create_task(bench.work(server, health_check_interval=0.2))
        await server.until(lambda: len(server.requests) >= 3)
        await server.stop()
        async with asyncio.timeout(10):
            while changes(bench, "w0")[-1:] != [False]:  # noqa: ASYNC110 - a listener sets no event
                await asyncio.sleep(0.02)
        assert not run.done()
        await server.start()
        await run
    # Where there may be others, it may have gone before it was anybody's.
    assert changes(bench, "w0")[-2:] == [False, True]
    # Only what it was answering when it was killed can have cost a retry.
    assert bench.rows("SELECT sum(failures) <= 1, count(*) FROM prompts WHERE state = 'done'") == [(1, 8)]
    bench.assert_consistent()


async def test_of_a_large_fleet_only_so_many_are_looked_at_at_once(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FakeServer()) for _ in range(AT_ONCE + 20)]
        for server in servers:
            server.probe_hangs = True
        async with bench.coordinator(*servers) as coordinator:
            run = asyncio.create_task(coordinator.run(None))
            async with asyncio.timeout(10):
                while sum(server.probes for server in servers) < AT_ONCE:  # noqa: ASYNC110 - of many servers
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert sum(server.probes for server in servers) == AT_ONCE
            for server in servers:
                server.probe_hangs = False
            last = servers[-1]
            await last.until(lambda: last.probes > 0)
            coordinator.abort()
            await run
