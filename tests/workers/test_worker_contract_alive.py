"""What every adapter promises of a server that computes: fakes, and the real llama.cpp server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from distllm.domain.models import ErrorClass, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.base import Worker
from distllm.workers.embedded import EmbeddedWorker
from tests.fakes import FakeServer, Seen
from tests.workers.worker_kit import ADAPTERS, LONG, PAPER, REAL_CONTEXT, Adapter, call

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Living:
    """A worker that answers; how its server is killed and brought back, and what its only slot does.

    `tells` is what the server says of itself: `slots`, `speed`, and how much was `cached`; where it does not
    say, `seen` is the last request as the fake saw it.
    """

    worker: Worker
    kill: Callable[[], Awaitable[None]]
    revive: Callable[[], Awaitable[None]]
    slot: Callable[[], Awaitable[dict[str, Any]]]
    tells: frozenset[str]
    seen: Callable[[], Seen] | None = None

    async def until(self, met: Callable[[dict[str, Any]], bool], seconds: float = 30) -> None:
        """Look at the server's only slot until something is so."""
        async with asyncio.timeout(seconds):
            while True:
                if met(await self.slot()):
                    return
                await asyncio.sleep(0.02)


TELLS = {
    WorkerType.OPENAI: frozenset({"slots", "speed", "cached"}),
    WorkerType.LM_STUDIO: frozenset({"slots"}),
    WorkerType.OLLAMA: frozenset({"speed"}),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def real(session: aiohttp.ClientSession) -> AsyncIterator[EmbeddedWorker]:
    worker = EmbeddedWorker(WorkerSpec("e", WorkerType.EMBEDDED, context_length=REAL_CONTEXT), session)
    await worker.start()
    yield worker
    await worker.close()


@pytest.fixture(params=[*ADAPTERS, "llama.cpp"], ids=str)
def which(request: pytest.FixtureRequest) -> Adapter | str:
    found: Adapter | str = request.param
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def fake(which: Adapter | str) -> AsyncIterator[FakeServer | None]:
    if isinstance(which, str):
        yield None
        return
    async with which.server(seconds_per_token=0.01) as server:
        server.answer = lambda seen: "word " * (_most_tokens(seen) + 1)
        yield server


@pytest.fixture
def living(
    request: pytest.FixtureRequest, which: Adapter | str, fake: FakeServer | None, session: aiohttp.ClientSession
) -> Living:
    if isinstance(which, str) or fake is None:
        return _real(request.getfixturevalue("real"), session)

    async def slot() -> dict[str, Any]:
        return fake.show_slots()[0]

    worker, tells = which.worker(fake, session), TELLS[which.type]
    return Living(worker, fake.stop, fake.start, slot, tells, seen=lambda: fake.requests[-1])


def _real(worker: EmbeddedWorker, session: aiohttp.ClientSession) -> Living:
    async def kill() -> None:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        url = URL(worker.health_endpoint)
        while True:
            try:
                _, writer = await asyncio.open_connection(url.host, url.port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0.01)

    async def slot() -> dict[str, Any]:
        base = worker.health_endpoint.removesuffix("/v1/models")
        async with session.get(f"{base}/slots", headers=worker._headers) as response:
            (found,) = await response.json()
        return dict(found)

    return Living(worker, kill, worker.start, slot, TELLS[WorkerType.OPENAI])


def _most_tokens(seen: Seen) -> int:
    return int(seen.body.get("max_tokens") or seen.body["options"]["num_predict"])


async def test_it_answers_and_says_what_that_cost(living: Living) -> None:
    outcome = await living.worker.ask(call(), LONG)
    assert outcome.error is None
    assert outcome.answer
    assert outcome.finish_reason in ("stop", "length")
    assert (outcome.usage.prompt_tokens or 0) > 0.6 * call().tokens
    assert 0 < (outcome.usage.completion_tokens or 0) <= 12
    assert (outcome.usage.prefill_seconds is not None) is ("speed" in living.tells)
    assert (outcome.usage.decode_seconds is not None) is ("speed" in living.tells)


async def test_the_second_question_finds_the_paper_in_the_cache(living: Living) -> None:
    await living.worker.ask(call(max_tokens=2), LONG)
    second = await living.worker.ask(call("How many houses were lost?", max_tokens=2), LONG)
    read, cached = second.usage.prompt_tokens, second.usage.cached_tokens
    assert read
    if "cached" not in living.tells:
        assert cached is None
        assert living.seen is not None
        cached = living.seen().cached_tokens
    assert cached
    assert 0.6 * read < cached < read


async def test_a_prompt_beyond_the_window_is_refused_with_the_figures(living: Living) -> None:
    outcome = await living.worker.ask(call(system=PAPER * 24), LONG)
    assert outcome.error_class is ErrorClass.INPUT
    assert str(REAL_CONTEXT) in (outcome.error or "")


async def test_it_offers_its_model_with_the_window(living: Living) -> None:
    # Ollama loads a model, and so has a window, only when it is asked.
    await living.worker.ask(call(max_tokens=2), LONG)
    health = await living.worker.probe()
    assert health.healthy
    assert health.slots == (1 if "slots" in living.tells else None)
    (offer,) = health.offers
    assert (offer.context_length, offer.loaded, offer.window_told) == (REAL_CONTEXT, True, True)


async def test_llama_cpp_taken_for_lm_studio_answers_too(real: EmbeddedWorker, session: aiohttp.ClientSession) -> None:
    await real.start()
    url = URL(real.api_endpoint)
    key = real._headers["Authorization"].removeprefix("Bearer ")
    spec = WorkerSpec("l", WorkerType.LM_STUDIO, host=str(url.host), port=url.port or 0, api_key=key)
    worker = make_worker(replace(spec, endpoint="completions"), session)
    health = await worker.probe()
    (offer,) = health.offers
    assert (offer.context_length, offer.loaded, health.slots) == (REAL_CONTEXT, True, 1)
    # A raw prompt is gone on with, not answered.
    outcome = await worker.ask(replace(call("In short, the dam broke in the month of"), model=offer.model), LONG)
    assert outcome.error is None
    assert outcome.answer


async def test_killed_in_the_middle_and_back_again(living: Living) -> None:
    worker = living.worker
    asking = asyncio.create_task(worker.ask(call("Count.", max_tokens=900), LONG))
    await living.until(_is_writing)
    await living.kill()
    outcome = await asking
    assert outcome.error_class is ErrorClass.LOST
    assert (await worker.ask(call(), LONG)).error_class is ErrorClass.REFUSED
    await living.revive()
    assert (await worker.ask(call(max_tokens=4), LONG)).error is None


async def test_a_cancelled_call_frees_the_only_slot(living: Living) -> None:
    asking = asyncio.create_task(living.worker.ask(call("Count on.", max_tokens=900), LONG))
    await living.until(_is_writing)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # 900 tokens take longer than this wait.
    await living.until(lambda slot: not slot["is_processing"], seconds=5)
    assert (await living.worker.ask(call(max_tokens=2), LONG)).error is None


def _is_writing(slot: dict[str, Any]) -> bool:
    return bool(slot["is_processing"] and slot["next_token"][0]["n_decoded"] > 2)
