"""Every worker gone, for an hour: nobody is charged for it, and the job ends when they are back. The clock is moved."""

import asyncio
import time

from distllm.domain.clock import Clock
from distllm.store.database import open_database
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.dispatcher.movable import MovableLoop, run_movable
from tests.fakes.behaviour import GOOD, Behaviour
from tests.fakes.server import FakeServer
from tests.store.store_kit import SqliteStore

HOUR = 3600.0
SILENT = Behaviour(headers_after=10 * HOUR)


def test_all_workers_gone_for_an_hour_cost_no_prompt_anything(sqlite_store: SqliteStore) -> None:
    async def story(loop: MovableLoop) -> None:
        began, started = time.time(), loop.time()
        clock = Clock(now=lambda: began + loop.time() - started, ticks=loop.time)
        one, two = FakeServer(), FakeServer()
        async with open_database(sqlite_store.place) as database, one, two:
            bench = Bench(database, sqlite_store)
            await store_job(database, [paper(n) for n in range(10)], ["What?"])
            # Each has answered once; of its second answer no byte had come when it went.
            for server in (one, two):
                server.behave(GOOD)
                server.behave_always(SILENT)
            run = asyncio.create_task(bench.work(one, two, seconds=2 * HOUR, health_check_interval=30.0, clock=clock))
            for server in (one, two):
                await server.until(lambda server=server: len(server.requests) == 2, seconds=20)
            async with asyncio.timeout(20):
                while bench.rows("SELECT count(*) FROM results") != [(2,)]:  # noqa: ASYNC110 - a commit sets no event
                    await asyncio.sleep(0.01)
            await one.stop()
            await two.stop()
            for _ in range(60):
                loop.advance(HOUR / 60)
                await asyncio.wait([run], timeout=0.02)
            assert not run.done(), bench.said()
            assert bench.rows("SELECT count(*), sum(failures) FROM prompts WHERE state = 'pending'") == [(8, 0)]
            # The two that were in flight are remembered as lost with their servers; an hour of nobody adds nothing.
            assert bench.rows("SELECT count(*) FROM attempts WHERE outcome NOT IN ('done', 'lost', 'refused')") == [
                (0,)
            ]
            assert bench.rows("SELECT sum(losses), max(losses) FROM prompts") == [(2, 1)]
            # The breakers let a request through now and then, as long as nobody had looked.
            assert bench.rows("SELECT count(*) FROM attempts")[0][0] < 12
            for server in (one, two):
                server.behave_always(GOOD)
                await server.start()
            for _ in range(60):
                loop.advance(1.0)
                await asyncio.wait([run], timeout=0.1)
                if run.done():
                    break
            await run
            assert bench.rows("SELECT count(*), sum(failures) FROM prompts WHERE state = 'done'") == [(10, 0)]
            bench.assert_consistent()

    run_movable(story)
