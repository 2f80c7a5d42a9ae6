"""Who is asked a single question, by what came of the questions before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

import pytest

from distllm.dispatcher.direct import Direct
from distllm.domain.models import Call, ErrorClass, Health, Offer, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.base import Worker
from distllm.workers.session import open_session
from tests.fakes.behaviour import HANGS, RESET, Behaviour
from tests.fakes.server import FakeServer

CALL = Call(model="fake-model", system="", question="Why?", max_tokens=20, temperature=0.0, tokens=20)


async def both_are_well(_: Worker) -> Health:
    """What a look at each worker finds."""
    return Health(healthy=True, offers=(Offer("fake-model", 100_000),), slots=2)


@dataclass
class Pair:
    """Two workers that are alike, with the servers behind them."""

    direct: Direct
    servers: list[FakeServer]

    async def ask_first(self) -> ErrorClass | None:
        """Ask the first worker alone; what it failed of."""
        choices = await self.direct.choose(CALL)
        first = [each for each in choices if each.worker.name == "w0"]
        return (await self.direct.ask(CALL, first)).error_class

    async def share_of_first(self) -> float:
        """How often the first worker is the first choice."""
        firsts = [(await self.direct.choose(CALL))[0].worker.name for _ in range(2_000)]
        return firsts.count("w0") / len(firsts)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two workers of which nothing is known."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FakeServer(context=100_000)) for _ in range(2)]
        session = await stack.enter_async_context(open_session())
        specs = [
            WorkerSpec(name=f"w{n}", type=WorkerType.OPENAI, port=server.port, model=server.model)
            for n, server in enumerate(servers)
        ]
        workers = [make_worker(spec, session) for spec in specs]
        yield Pair(Direct(workers, both_are_well, lambda model: (model,), request_timeout=10.0, rng=Random(1)), servers)


async def test_a_worker_is_not_blamed_for_questions_that_are_given_up(pair: Pair) -> None:
    pair.servers[0].behave_always(HANGS)
    for number in range(5):
        asking = asyncio.create_task(pair.ask_first())
        await pair.servers[0].until(lambda number=number: len(pair.servers[0].requests) == number + 1)  # type: ignore[misc]  # a lambda's default
        asking.cancel()
        await asyncio.wait([asking])
    assert 0.46 < await pair.share_of_first() < 0.54


async def test_a_worker_is_not_blamed_for_questions_that_it_cannot_take(pair: Pair) -> None:
    pair.servers[0].behave_always(Behaviour(status=429, body={"error": {"message": "busy"}}))
    assert [await pair.ask_first() for _ in range(5)] == [ErrorClass.BUSY] * 5
    assert 0.46 < await pair.share_of_first() < 0.54


async def test_a_worker_that_breaks_off_is_asked_less(pair: Pair) -> None:
    pair.servers[0].behave_always(RESET)
    assert {await pair.ask_first() for _ in range(5)} <= {ErrorClass.BROKEN, ErrorClass.LOST}
    assert await pair.share_of_first() < 0.42
