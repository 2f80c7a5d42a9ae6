"""A prompt that brings down whoever takes it is found by asking it alone, and no other fails for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from distllm.domain.policy import DEATHS_TO_CONDEMN, LOSSES_TO_SUSPECT
from distllm.store.control import pause
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import CRASHED, EMPTY, RESET
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

POISON = "paper3word0"


class Fragile:
    """Servers that go down, with all that is in flight, when one text arrives, and are back at once.

    `company` has, for each time it arrived, how many other requests were in flight.
    """

    def __init__(self) -> None:
        self.servers: list[FakeServer] = []
        self.company: list[int] = []
        self._restarts: set[asyncio.Task[None]] = set()

    def server(self, **settings: object) -> FakeServer:
        server = FakeServer(on_request=self._look, **settings)  # type: ignore[arg-type]
        self.servers.append(server)
        return server

    def _look(self, seen: Seen) -> None:
        if POISON not in seen.system:
            return
        running = [each for server in self.servers for each in server.requests if each.ended is None]
        self.company.append(len(running) - 1)
        [hit] = [server for server in self.servers if seen in server.requests]
        restart = asyncio.create_task(self._restart(hit))
        self._restarts.add(restart)
        restart.add_done_callback(self._restarts.discard)

    async def _restart(self, server: FakeServer) -> None:
        await server.stop()
        await server.start()


async def suspect(bench: Bench, name: str) -> None:
    """Make a paper's prompts ones that were in flight at the last deaths."""
    await bench.change(
        "UPDATE prompts SET losses = :losses WHERE document_id IN"
        " (SELECT document_id FROM job_documents WHERE name = :name)",
        losses=LOSSES_TO_SUSPECT,
        name=name,
    )


@contextmanager
def never_together(server: FakeServer, text: str) -> Iterator[list[int]]:
    """How many other requests were in flight whenever one with `text` was."""
    company: list[int] = []

    def look(seen: Seen) -> None:
        running = [each for each in server.requests if each.ended is None]
        if any(text in each.system for each in running):
            company.append(len(running) - 1)

    server._on_request = look
    yield company


async def test_a_prompt_that_brings_its_servers_down_fails_and_no_other_does(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(12)], ["What?"])
    fragile = Fragile()
    async with fragile.server(slots=4, seconds_per_token=0.01) as one, fragile.server(slots=2) as two:
        await bench.work(one, two, seconds=60, health_check_interval=0.1, max_retries=1)
    assert bench.rows("SELECT state, count(*) FROM prompts GROUP BY 1 ORDER BY 1") == [("done", 11), ("failed", 1)]
    [(document, attempts, error)] = bench.rows("SELECT document, attempts, error FROM failures")
    assert document == "paper3.txt"
    # A server that restarts may cut the connection of a request that never arrives: an attempt more, each time.
    unheard = attempts - len(fragile.company)
    assert 0 <= attempts - LOSSES_TO_SUSPECT - DEATHS_TO_CONDEMN <= unheard <= 2
    assert fragile.company[-DEATHS_TO_CONDEMN:] == [0] * DEATHS_TO_CONDEMN
    assert "nothing else in flight" in error
    assert bench.rows("SELECT sum(failures) FROM prompts WHERE state = 'done'") == [(0,)]
    assert [text for text in bench.said() if "one at a time" in text]
    bench.assert_consistent()


async def test_a_prompt_that_crashes_whoever_takes_it_closes_no_worker_to_the_others(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(8)], ["What?"])
    async with FakeServer() as one, FakeServer() as two, bench.coordinator(one, two, max_retries=3) as coordinator:
        for server in (one, two):
            server.behave_for(POISON, CRASHED)
        await coordinator.run(lambda _: True)
        # It was tried on both, so that none of them alone can be to blame.
        assert all(any(seen.behaviour is CRASHED for seen in server.requests) for server in (one, two))
    assert bench.rows("SELECT state, count(*) FROM prompts GROUP BY 1 ORDER BY 1") == [("done", 7), ("failed", 1)]
    assert bench.rows("SELECT document, attempts FROM failures") == [
        ("paper3.txt", LOSSES_TO_SUSPECT + DEATHS_TO_CONDEMN)
    ]
    assert bench.rows("SELECT DISTINCT breaker FROM workers") == [("closed",)]
    bench.assert_consistent()


async def test_an_innocent_suspect_is_answered_with_nothing_else_in_flight(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(10)], ["What?", "How?"])
    await suspect(bench, "paper3.txt")
    async with FakeServer(slots=4, seconds_per_token=0.005) as server:
        with never_together(server, POISON) as company:
            await bench.work(server)
        assert company == [0, 0]
        assert len(server.requests) == 20
    assert bench.rows("SELECT DISTINCT state FROM prompts") == [("done",)]
    bench.assert_consistent()


async def test_who_refuses_a_suspect_in_words_has_not_gone_down_with_it(bench: Bench) -> None:
    await store_job(bench.database, [paper(3)], ["What?"])
    await suspect(bench, "paper0.txt")
    async with FakeServer() as server:
        server.behave(*[RESET] * (DEATHS_TO_CONDEMN - 1), EMPTY, RESET)
        await bench.work(server, max_retries=1)
    assert bench.rows("SELECT state, failures, deaths_alone FROM prompts") == [("done", 1, 1)]
    bench.assert_consistent()


async def test_a_suspect_that_nobody_can_take_keeps_the_others_from_nothing(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(4)], ["What?"], model="elsewhere")
    await store_job(bench.database, [paper(n) for n in range(4)], ["How?"])
    await suspect(bench, "paper1.txt")
    await bench.change("UPDATE prompts SET losses = 0 WHERE job_id = 2")
    async with FakeServer(slots=2) as server, bench.coordinator(server) as coordinator, asyncio.timeout(20):
        await coordinator.run(lambda job: job == 2)
    assert bench.rows("SELECT state, count(*) FROM prompts GROUP BY 1 ORDER BY 1") == [("done", 4), ("pending", 4)]


async def test_a_suspect_of_a_paused_job_waits_and_keeps_the_others_from_nothing(bench: Bench) -> None:
    job = await store_job(bench.database, [paper(1)], ["What?"])
    await store_job(bench.database, [paper(2)], ["How?"])
    await suspect(bench, "paper0.txt")
    await bench.change("UPDATE prompts SET losses = 0 WHERE job_id = 2")
    await bench.database.write(lambda tx: pause(tx, job, 3.0))
    async with FakeServer() as server, bench.coordinator(server) as coordinator, asyncio.timeout(20):
        await coordinator.run(lambda job: job == 2)
    assert bench.rows("SELECT job_id, state FROM prompts ORDER BY 1") == [(1, "pending"), (2, "done")]


async def test_what_was_asked_before_is_on_disk_before_it_is_asked_again(bench: Bench) -> None:
    await store_job(bench.database, [paper(3)], ["What?"])
    written: list[list[tuple[object, ...]]] = []

    def look(_: Seen) -> None:
        written.append(bench.rows("SELECT lease FROM attempts WHERE outcome IS NULL"))

    async with FakeServer(on_request=look) as server:
        server.behave(RESET, RESET)
        await bench.work(server)
    assert written[1:] == [[(2,)], [(3,)]]
