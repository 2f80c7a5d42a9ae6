"""Several coordinators on one PostgreSQL: they share the work and the workers, and take over from each other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from distllm.domain.events import Noticed
from distllm.store.database import open_database
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import CRASHED
from tests.fakes.server import FakeServer
from tests.store.store_kit import PostgresStore

QUESTIONS = ("What is new?", "What is old?")


@dataclass
class Cluster:
    """A database on a server, and the coordinators that work it, each as in a process of its own."""

    store: PostgresStore
    benches: list[Bench] = field(default_factory=list)

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database in SQL."""
        connection = await asyncpg.connect(self.store.place.secret)
        try:
            return [tuple(row) for row in await connection.fetch(statement, *values)]
        finally:
            await connection.close()

    async def add_job(self, papers: int, first: int = 0) -> int:
        """A job about so many papers that nobody has asked about before."""
        async with open_database(self.store.place) as database:
            return await store_job(database, [paper(first + each) for each in range(papers)], QUESTIONS)

    @asynccontextmanager
    async def working(
        self, *servers: FakeServer, wanted: Callable[[int], bool] | None = lambda _: True, **settings: Any
    ) -> AsyncIterator["asyncio.Task[None]"]:
        """One more coordinator at work; it is told to stop at the end of the block, and has 20 s for that."""
        async with open_database(self.store.place) as database:
            bench = Bench(database, self.store)
            self.benches.append(bench)
            async with bench.coordinator(*servers, **settings) as coordinator:
                task = asyncio.create_task(coordinator.run(wanted))
                try:
                    yield task
                finally:
                    if not task.done():
                        coordinator.stop()
                    async with asyncio.timeout(20):
                        await task

    async def until(self, statement: str, *values: Any, seconds: float = 10.0) -> None:
        """Wait until a statement finds something."""
        async with asyncio.timeout(seconds):
            while not await self.rows(statement, *values):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.05)

    async def assert_done(self, prompts: int) -> None:
        """Each prompt is done and has one result, and nobody holds anything."""
        assert await self.rows("SELECT state, count(*) FROM prompts GROUP BY state ORDER BY 1") == [("done", prompts)]
        assert await self.rows("SELECT count(*) FROM results") == [(prompts,)]
        assert await self.rows("SELECT sum(done), sum(pending), sum(leased) FROM job_counters") == [(prompts, 0, 0)]
        assert await self.rows("SELECT 1 FROM jobs WHERE finished_at IS NULL") == []
        assert await self.rows("SELECT 1 FROM attempts WHERE outcome IS NULL") == []

    async def kill_connections(self, name: str) -> None:
        """Have the server end the connections whose names end so."""
        await self.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1", name)


@pytest.fixture
def cluster(postgres_store: PostgresStore) -> Cluster:
    return Cluster(postgres_store)


def asked(*servers: FakeServer) -> int:
    return sum(len(server.requests) for server in servers)


async def test_two_coordinators_share_the_workers_and_each_prompt_is_asked_once(cluster: Cluster) -> None:
    async with FakeServer(slots=3, seconds_per_token=0.02) as one, FakeServer(slots=3, seconds_per_token=0.02) as two:
        await cluster.add_job(30)
        async with cluster.working(one, two) as first, cluster.working(one, two) as second:
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        assert asked(one, two) == 60
        assert max(one.most_at_once, two.most_at_once) <= 3
        assert await cluster.rows("SELECT count(DISTINCT coordinator_id) FROM attempts") == [(2,)]
    await cluster.assert_done(60)


async def test_a_paper_is_read_once_whichever_coordinator_asks_about_it(cluster: Cluster) -> None:
    async with (
        FakeServer(slots=1, seconds_per_prompt_token=0.0005) as one,
        FakeServer(slots=1, seconds_per_prompt_token=0.0005) as two,
    ):
        await cluster.add_job(12)
        await cluster.add_job(12)
        async with cluster.working(one, two) as first, cluster.working(one, two) as second:
            await asyncio.wait_for(asyncio.gather(first, second), 30)
    await cluster.assert_done(48)
    readings = await cluster.rows(
        "SELECT p.reading_id FROM attempts a JOIN prompts p ON p.id = a.prompt_id GROUP BY 1 "
        "HAVING count(DISTINCT a.worker_id) > 1"
    )
    assert readings == []


async def test_one_that_comes_later_is_given_its_share_of_the_workers_and_gives_it_back(cluster: Cluster) -> None:
    async with FakeServer(seconds_per_token=0.01) as one, FakeServer(seconds_per_token=0.01) as two:
        await cluster.add_job(200)
        async with cluster.working(one, two):
            owned = (
                "SELECT coordinator_id FROM workers WHERE coordinator_id IS NOT NULL GROUP BY 1 HAVING count(*) = $1"
            )
            await cluster.until(owned, 2)
            async with cluster.working(one, two):
                await cluster.until(f"SELECT 1 WHERE (SELECT count(*) FROM ({owned}) AS each) = 2", 1)
            await cluster.until(owned, 2)
    assert max(one.most_at_once, two.most_at_once) == 1


async def test_who_loses_its_connection_ends_its_requests_at_once_and_begins_anew(cluster: Cluster) -> None:
    async with FakeServer(slots=2, seconds_per_token=0.5) as server:
        await cluster.add_job(2)
        async with cluster.working(server) as task:
            await server.until(lambda: len(server.requests) == 2)
            await cluster.kill_connections("%alive")
            await server.until(lambda: server.in_flight == 0, seconds=1.0)
            server.seconds_per_token = 0.0
            await asyncio.wait_for(task, 20)
        assert server.most_at_once == 2
    await cluster.assert_done(4)
    assert await cluster.rows("SELECT max(losses), max(failures) FROM prompts") == [(0, 0)]
    [bench] = cluster.benches
    assert [text for text in bench.said() if "what was in flight is asked again" in text]


async def test_who_loses_all_its_connections_loses_no_answer(cluster: Cluster) -> None:
    async with FakeServer(slots=4, seconds_per_token=0.002) as one, FakeServer(slots=4, seconds_per_token=0.002) as two:
        await cluster.add_job(60)
        async with cluster.working(one, two) as first, cluster.working(one, two) as second:
            for _ in range(4):
                await asyncio.sleep(0.4)
                await cluster.kill_connections("distllm%")
            await asyncio.wait_for(asyncio.gather(first, second), 60)
        assert max(one.most_at_once, two.most_at_once) <= 4
    await cluster.assert_done(120)


async def test_an_idle_coordinator_begins_at_once_with_what_is_submitted(cluster: Cluster) -> None:
    async with FakeServer() as server, cluster.working(server, wanted=None):
        await cluster.until("SELECT 1 FROM workers WHERE coordinator_id IS NOT NULL")
        await asyncio.sleep(1.5)
        await cluster.add_job(1)
        await server.until(lambda: bool(server.requests), seconds=1.5)
        await cluster.until("SELECT 1 FROM jobs WHERE finished_at IS NOT NULL")
    await cluster.assert_done(2)


async def test_what_one_has_found_broken_the_next_tries_with_one_request(cluster: Cluster) -> None:
    async with FakeServer(slots=4) as server:
        await cluster.add_job(8)
        server.behave_always(CRASHED)
        async with cluster.working(server):
            await cluster.until("SELECT 1 FROM workers WHERE breaker = 'open'")
        before = len(server.requests)
        async with cluster.working(server):
            await cluster.until("SELECT 1 FROM workers WHERE coordinator_id IS NOT NULL")
            await server.until(lambda: len(server.requests) > before, seconds=20)
            assert len(server.requests) == before + 1


async def test_what_is_too_long_for_the_servers_of_one_is_left_to_another_that_has_larger_ones(
    cluster: Cluster,
) -> None:
    async with (
        FakeServer(context=100) as small,
        FakeServer(seconds_per_token=0.01, context=8000) as large,
        cluster.working(large, wanted=None),
        cluster.working(small, wanted=None),
    ):
        await cluster.until("SELECT 1 FROM workers WHERE coordinator_id IS NOT NULL HAVING count(*) = 2")
        await cluster.add_job(12)
        await cluster.until("SELECT 1 FROM jobs WHERE finished_at IS NOT NULL", seconds=20)
    await cluster.assert_done(24)


async def test_a_notice_tells_people_what_happened(cluster: Cluster) -> None:
    async with FakeServer(seconds_per_token=0.2) as server:
        await cluster.add_job(1)
        async with cluster.working(server) as task:
            await server.until(lambda: bool(server.requests))
            await cluster.kill_connections("%alive")
            server.seconds_per_token = 0.0
            await asyncio.wait_for(task, 20)
        [told] = [event.text for bench in cluster.benches for event in bench.events if isinstance(event, Noticed)]
        assert told == "the connection to the database was lost; what was in flight is asked again"


async def test_servers_that_only_one_coordinator_has_are_all_its_own(cluster: Cluster) -> None:
    async with (
        FakeServer(seconds_per_token=0.02) as a,
        FakeServer(seconds_per_token=0.02) as b,
        FakeServer(seconds_per_token=0.02) as c,
        FakeServer(seconds_per_token=0.02) as d,
    ):
        await cluster.add_job(40)
        async with cluster.working(a, b) as first, cluster.working(c, d) as second:
            await asyncio.wait_for(asyncio.gather(first, second), 40)
        assert min(map(asked, (a, b, c, d))) > 5
    await cluster.assert_done(80)
