"""What every adapter promises of a server that computes: fakes, and the real llama.cpp server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from distllm.domain.models import ErrorClass, WorkerSpec, WorkerType
from distllm.workers import embedded_available
from distllm.workers.base import Worker
from distllm.workers.embedded import EmbeddedWorker
from tests.fakes import FakeServer
from tests.workers.worker_kit import ADAPTERS, LONG, PAPER, REAL_CONTEXT, Adapter, call

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Living:
    """A worker that answers, and how its server is killed and brought back."""

    worker: Worker
    kill: Callable[[], Awaitable[None]]
    revive: Callable[[], Awaitable[None]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def real(session: aiohttp.ClientSession) -> AsyncIterator[EmbeddedWorker]:
    if not embedded_available():
        pytest.skip("neither llama.cpp nor a model is installed")
    worker = EmbeddedWorker(WorkerSpec("e", WorkerType.EMBEDDED, context_length=REAL_CONTEXT), session)
    await worker.start()
    yield worker
    await worker.close()


@pytest.fixture(params=[*ADAPTERS, "llama.cpp"], ids=str)
def living(request: pytest.FixtureRequest, fake: FakeServer, session: aiohttp.ClientSession) -> Living:
    if isinstance(request.param, Adapter):
        fake.seconds_per_token = 0.01
        fake.answer = lambda seen: "word " * (int(seen.body["max_tokens"]) + 1)
        return Living(request.param.worker(fake, session), fake.stop, fake.start)
    worker: EmbeddedWorker = request.getfixturevalue("real")

    async def kill() -> None:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)

    return Living(worker, kill, worker.start)


async def test_it_answers_and_says_what_that_cost(living: Living) -> None:
    outcome = await living.worker.ask(call(), LONG)
    assert outcome.error is None
    assert outcome.answer
    assert outcome.finish_reason in ("stop", "length")
    assert (outcome.usage.prompt_tokens or 0) > 0.6 * call().tokens
    assert 0 < (outcome.usage.completion_tokens or 0) <= 12
    assert outcome.usage.prefill_seconds is not None
    assert outcome.usage.decode_seconds is not None


async def test_the_second_question_finds_the_paper_in_the_cache(living: Living) -> None:
    await living.worker.ask(call(max_tokens=2), LONG)
    second = await living.worker.ask(call("How many houses were lost?", max_tokens=2), LONG)
    read, cached = second.usage.prompt_tokens, second.usage.cached_tokens
    assert read
    assert cached
    assert 0.6 * read < cached < read


async def test_a_prompt_beyond_the_window_is_refused_with_the_figures(living: Living) -> None:
    outcome = await living.worker.ask(call(system=PAPER * 24), LONG)
    assert outcome.error_class is ErrorClass.INPUT
    assert str(REAL_CONTEXT) in (outcome.error or "")


async def test_it_offers_its_model_with_the_window(living: Living) -> None:
    health = await living.worker.probe()
    assert health.healthy
    assert health.slots == 1
    (offer,) = health.offers
    assert offer.context_length == REAL_CONTEXT


async def test_killed_in_the_middle_and_back_again(living: Living) -> None:
    worker = living.worker
    asking = asyncio.create_task(worker.ask(call("Count.", max_tokens=900), LONG))
    await _wait_for_slot(living.worker, _is_writing)
    await living.kill()
    outcome = await asking
    assert outcome.error_class is ErrorClass.BROKEN
    assert (await worker.ask(call(), LONG)).error_class is ErrorClass.REFUSED
    await living.revive()
    assert (await worker.ask(call(max_tokens=4), LONG)).error is None


async def test_a_cancelled_call_frees_the_only_slot(living: Living) -> None:
    asking = asyncio.create_task(living.worker.ask(call("Count on.", max_tokens=900), LONG))
    await _wait_for_slot(living.worker, _is_writing)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # 900 tokens take longer than this wait.
    await _wait_for_slot(living.worker, lambda slot: not slot["is_processing"], seconds=5)
    assert (await living.worker.ask(call(max_tokens=2), LONG)).error is None


async def _wait_for_slot(worker: Worker, met: Callable[[dict[str, Any]], bool], seconds: float = 30) -> None:
    """Look at the server's only slot until something is so."""
    base = worker.health_endpoint.removesuffix("/v1/models")
    headers = worker._headers  # type: ignore[attr-defined]
    async with asyncio.timeout(seconds):
        while True:
            async with worker._session.get(f"{base}/slots", headers=headers) as response:
                (slot,) = await response.json()
            if met(slot):
                return
            await asyncio.sleep(0.02)


def _is_writing(slot: dict[str, Any]) -> bool:
    return bool(slot["is_processing"] and slot["next_token"][0]["n_decoded"] > 2)
