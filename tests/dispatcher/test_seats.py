"""Seats of servers that do not tell their slots: tried over real sockets, remembered, never more than configured."""

from collections.abc import Callable

from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import POOL_FULL
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

QUESTIONS = [f"What is said of {n}?" for n in range(5)]
READING, WRITING = 0.00012, 0.001


class Watched:
    """A server that notes how many requests it had, answered and not, at each new one."""

    def __init__(
        self,
        kind: str,
        slots: int,
        slower: Callable[[int], float] = lambda _: 1.0,
        reading: float = READING,
        writing: float = WRITING,
    ) -> None:
        self.had: list[int] = []
        self.server = FakeServer(
            kind=kind,
            model="fake-model",
            slots=slots,
            seconds_per_prompt_token=reading,
            seconds_per_token=writing,
            slower=slower,
            answer=lambda _: "it says so in as many words",
            on_request=self._note,
        )

    def _note(self, _: Seen) -> None:
        self.had.append(sum(seen.ended is None for seen in self.server.requests))


async def work(bench: Bench, watched: Watched, papers: int, first: int = 0, seats: int | None = 4) -> list[int]:
    """Have so many papers read; how many requests the server had at each."""
    watched.had.clear()
    await store_job(bench.database, [paper(first + n, 40) for n in range(papers)], QUESTIONS, name=f"from {first}")
    await bench.work(watched.server, seats=seats, seconds=60.0)
    return watched.had


def kept(bench: Bench) -> int | None:
    return bench.rows("SELECT seats FROM workers")[0][0]


async def test_a_queue_without_a_sign_is_found_out_and_remembered(bench: Bench) -> None:
    watched = Watched("ollama", slots=1, reading=3 * READING)
    async with watched.server as server:
        had = await work(bench, watched, 10, seats=2)
        assert max(had) == had[20] == 2
        assert kept(bench) == 1
        before = len(server.requests)
        assert max(await work(bench, watched, 6, first=100, seats=2)) == 1
        # One seat reads each paper once.
        later = server.requests[before:]
        one_paper = min(seen.prompt_tokens for seen in later)
        assert sum(seen.prompt_tokens - seen.cached_tokens for seen in later) < 1.2 * 6 * one_paper
    bench.assert_consistent()


async def test_slots_that_there_are_stay_in_use(bench: Bench) -> None:
    # Slow enough that the fake and distllm, which share a processor here, are not what holds the answers up.
    watched = Watched("ollama", slots=4, writing=10 * WRITING)
    async with watched.server as server:
        had = await work(bench, watched, 24)
        assert max(had) == 4
        assert kept(bench) in (3, 4)
        # Neither is a paper read twice because its seat was closed for a trial.
        one_paper = min(seen.prompt_tokens for seen in server.requests)
        assert sum(seen.prompt_tokens - seen.cached_tokens for seen in server.requests) < 1.15 * 24 * one_paper
    bench.assert_consistent()


async def test_a_server_that_does_less_the_more_it_is_asked_is_asked_less(bench: Bench) -> None:
    watched = Watched("plain", slots=4, slower=lambda running: running**2.2)
    async with watched.server:
        await work(bench, watched, 24)
        assert kept(bench) in (1, 2)
    bench.assert_consistent()


async def test_slots_that_are_told_are_believed_whatever_is_configured(bench: Bench) -> None:
    watched = Watched("llamacpp", slots=2)
    async with watched.server:
        assert max(await work(bench, watched, 12, seats=4)) == 2
        assert kept(bench) is None


async def test_who_neither_tells_nor_is_configured_is_asked_one_thing_at_a_time(bench: Bench) -> None:
    watched = Watched("plain", slots=4)
    async with watched.server:
        assert max(await work(bench, watched, 12, seats=None)) == 1
        assert kept(bench) is None


async def test_a_pool_that_is_full_is_asked_less_and_then_more_again(bench: Bench) -> None:
    watched = Watched("llamacpp", slots=4)
    async with watched.server as server:
        server.behave(*[POOL_FULL] * 4)
        had = await work(bench, watched, 20, seats=None)
        assert max(had[:4]) == 4
        assert max(had[4:8]) <= 2
        assert max(had[-40:]) == 4
    assert bench.rows("SELECT count(*), sum(failures) FROM prompts WHERE state = 'done'") == [(100, 0)]
    bench.assert_consistent()
