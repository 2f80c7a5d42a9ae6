"""Outside of the working hours nothing is leased; what is in flight then ends, and the work goes on by itself."""

import asyncio
from datetime import UTC, datetime

from distllm.domain.clock import Clock
from distllm.domain.hours import Hours
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import HELD
from tests.fakes.server import FakeServer

NIGHT = Hours(Hours.parse("22:00-07:00").ranges, UTC)


class Wall:
    """A clock on the wall, set by hand."""

    def __init__(self, hour: int) -> None:
        self.hour = hour

    def now(self) -> float:
        """The moment that it shows."""
        return datetime(2026, 11, 24, self.hour, tzinfo=UTC).timestamp()


async def until_said(bench: Bench, text: str) -> None:
    """Wait until people were told."""
    async with asyncio.timeout(10):
        while not any(text in said for said in bench.said()):  # noqa: ASYNC110 - a listener sets no event
            await asyncio.sleep(0.02)


async def test_work_begins_with_the_hours_and_rests_at_their_end(bench: Bench) -> None:
    wall = Wall(12)
    await store_job(bench.database, [paper(n) for n in range(3)], ["What?", "How?"])
    async with FakeServer() as server, bench.coordinator(server, clock=Clock(now=wall.now), hours=NIGHT) as coordinator:
        run = asyncio.create_task(coordinator.run(None))
        await until_said(bench, "nothing more is asked before 22:00")
        assert server.requests == []

        server.behave(HELD)
        wall.hour = 23
        await server.until(lambda: len(server.requests) == 1)
        wall.hour = 8
        async with asyncio.timeout(10):
            while len(bench.said()) < 3:  # noqa: ASYNC110 - a listener sets no event
                await asyncio.sleep(0.02)
        server.release()
        async with asyncio.timeout(10):
            while bench.rows("SELECT count(*) FROM results") != [(1,)]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        # What was in flight has its answer; what was leased with it has gone back, uncharged.
        assert len(server.requests) == 1
        await asyncio.wait_for(until_all(bench, [("done", 0, 1), ("pending", 0, 5)]), 10)

        wall.hour = 0
        await asyncio.wait_for(until_all(bench, [("done", 0, 6)]), 10)
        coordinator.stop()
        await asyncio.wait_for(run, 10)
    assert [said.partition(" (")[0] for said in bench.said()] == [
        "outside of the working hours",
        "the working hours have begun",
        "outside of the working hours",
        "the working hours have begun",
    ]
    bench.assert_consistent()


async def until_all(bench: Bench, states: list[tuple[str, int, int]]) -> None:
    """Wait until prompts are in these states, with these failures."""
    seen = "SELECT state, failures, count(*) FROM prompts GROUP BY 1, 2 ORDER BY 1"
    while bench.rows(seen) != states:  # noqa: ASYNC110 - a database sets no event
        await asyncio.sleep(0.02)


async def test_told_to_stop_outside_of_its_hours_it_stops(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    clock = Clock(now=Wall(12).now)
    async with FakeServer() as server, bench.coordinator(server, clock=clock, hours=NIGHT) as coordinator:
        run = asyncio.create_task(coordinator.run(None))
        await until_said(bench, "outside of the working hours")
        coordinator.stop()
        await asyncio.wait_for(run, 10)
        assert server.requests == []


async def test_without_an_end_it_works_what_is_submitted_later(bench: Bench) -> None:
    async with FakeServer() as server, bench.coordinator(server) as coordinator:
        run = asyncio.create_task(coordinator.run(None))
        for number in range(2):
            await store_job(bench.database, [paper(number)], ["What?"])
            await asyncio.wait_for(until_all(bench, [("done", 0, number + 1)]), 10)
        assert not run.done()
        coordinator.stop()
        await asyncio.wait_for(run, 10)
    bench.assert_consistent()
