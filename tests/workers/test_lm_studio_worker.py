"""What only LM Studio does: lists of what is loaded, models that load when asked, and answers from another."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio

from distllm.domain.models import ErrorClass, Health, Limits, Offer, WorkerSpec, WorkerType
from distllm.workers.lm_studio import LMStudioWorker
from distllm.workers.session import open_session
from tests.fakes import Behaviour, FakeServer, behaviour
from tests.workers.worker_kit import PAPER, call

LIMITS = Limits(5, 5, 10)
MODEL = "fake-model"


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def studio(**settings: object) -> FakeServer:
    return FakeServer(**{"kind": "lm_studio", "context": 4096, **settings})  # type: ignore[arg-type]


def worker(server: FakeServer, session: aiohttp.ClientSession, **changes: object) -> LMStudioWorker:
    spec = WorkerSpec("w", WorkerType.LM_STUDIO, host=server.host, port=server.port)
    return LMStudioWorker(replace(spec, **changes), session)  # type: ignore[arg-type]


ON_DISK = Offer("b", None, False, window_told=False)


@pytest.mark.parametrize(("version", "slots"), [("0.4.1", 4), ("0.3.20", None)])
async def test_what_is_loaded_has_a_window_and_what_is_on_disk_has_none(
    version: str, slots: int | None, session: aiohttp.ClientSession
) -> None:
    async with studio(models=("a", "b"), loaded=("a",), slots=4, version=version) as server:
        health = await worker(server, session).probe()
        assert health == Health(True, (Offer("a", 4096, True), ON_DISK), slots)
        assert server.loads == []


async def test_with_loading_on_demand_switched_off_only_what_is_loaded_is_offered(
    session: aiohttp.ClientSession,
) -> None:
    async with studio(models=("a", "b"), loaded=("a",), jit=False) as server:
        asked = worker(server, session)
        assert [offer.model for offer in (await asked.probe()).offers] == ["a"]
        outcome = await asked.ask(replace(call(), model="b"), LIMITS)
    assert outcome.error_class is ErrorClass.SETUP


async def test_a_model_on_disk_is_loaded_by_the_first_question(session: aiohttp.ClientSession) -> None:
    async with studio(models=("a", "b"), loaded=(), seconds_to_load=0.1) as server:
        asked = worker(server, session, model="b", context_length=2048)
        before = await asked.probe()
        assert before == Health(True, (Offer("b", 2048, False, window_told=False),), None)
        outcomes = [await asked.ask(replace(call(), model="b"), LIMITS) for _ in range(2)]
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert [outcome.window for outcome in outcomes] == [2048, None], "the window that it met, asked for once"
        after = await asked.probe()
    assert after == Health(True, (Offer("b", 2048, True),), 1)


async def test_a_model_loaded_twice_is_one_offer(session: aiohttp.ClientSession) -> None:
    async with studio(loaded=(MODEL, f"{MODEL}:2"), jit=False) as server:
        asked = worker(server, session)
        assert [offer.model for offer in (await asked.probe()).offers] == [MODEL]
        second = await worker(server, session, model=f"{MODEL}:2").probe()
        assert second.offers == (Offer(f"{MODEL}:2", 4096, True),)


async def test_an_older_one_that_answers_with_another_model_is_not_believed(session: aiohttp.ClientSession) -> None:
    async with studio(version="0.3.20", loaded=(MODEL,)) as server:
        outcome = await worker(server, session).ask(replace(call(), model="qwen3-8b"), LIMITS)
    assert (outcome.error_class, outcome.answer) == (ErrorClass.SETUP, "")
    assert f"'{MODEL}' answers there instead of the model 'qwen3-8b'" in (outcome.error or "")


@pytest.mark.parametrize(
    ("asked", "told", "same"),
    [
        ("qwen3-8b", "qwen3-8b", True),
        ("qwen3-8b", "qwen3-8b:2", True),
        ("qwen3-8b:2", "qwen3-8b", True),
        ("qwen/qwen3-8b", "qwen3-8b", True),
        ("qwen3-8b", "Qwen/Qwen3-8B@q4_k_m", True),
        ("qwen3-8b@q8_0", "qwen3-8b@q4_k_m", False),
        ("qwen3-8b", "qwen3-14b", False),
        ("llama3.1:8b", "llama3.1:70b", False),
    ],
)
async def test_a_name_may_have_more_around_it(
    asked: str, told: str, same: bool, session: aiohttp.ClientSession
) -> None:
    async with studio(loaded=(asked,)) as server:
        answer = {"model": told, "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
        server.behave(Behaviour(body=answer))
        outcome = await worker(server, session).ask(replace(call(), model=asked), LIMITS)
    assert outcome.error_class is (None if same else ErrorClass.SETUP)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
async def test_a_prompt_that_does_not_fit_is_refused_even_where_nothing_is_said(
    endpoint: str, told: bool, session: aiohttp.ClientSession
) -> None:
    async with studio(context=512) as server:
        server.overflow_is_told = told
        asked = worker(server, session, endpoint=endpoint)
        await asked.probe()
        outcome = await asked.ask(call(system=PAPER * 12), LIMITS)
    assert outcome.error_class is ErrorClass.INPUT
    assert "512" in (outcome.error or "")


async def test_not_even_a_proper_end_makes_nothing_an_answer(session: aiohttp.ClientSession) -> None:
    nothing = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    async with studio(context=512) as server:
        asked = worker(server, session)
        await asked.probe()
        server.behave(Behaviour(body=nothing), Behaviour(body=nothing))
        too_long, short = [await asked.ask(call(system=PAPER * many), LIMITS) for many in (12, 1)]
    assert (too_long.error_class, short.error_class) == (ErrorClass.INPUT, ErrorClass.BROKEN)
    assert "512" in (too_long.error or "")


async def test_an_empty_answer_to_a_prompt_that_fits_is_broken(session: aiohttp.ClientSession) -> None:
    async with studio() as server:
        asked = worker(server, session)
        await asked.probe()
        server.behave(behaviour.EMPTY, Behaviour(body=b""))
        outcomes = [await asked.ask(call(), LIMITS) for _ in range(2)]
    assert [outcome.error_class for outcome in outcomes] == [ErrorClass.BROKEN] * 2


async def test_its_key_is_sent_to_all_its_lists(session: aiohttp.ClientSession) -> None:
    async with studio(api_key="sk-lm-1") as server:
        health = await worker(server, session, api_key="sk-lm-1").probe()
        assert health.offers == (Offer(MODEL, 4096, True),)
        refused = await worker(server, session).probe()
    assert not refused.healthy
    assert "token is required" in (refused.error or "")


async def test_reasoning_is_kept_apart(session: aiohttp.ClientSession) -> None:
    async with studio() as server:
        server.behave(Behaviour(thinking="well now", answer="in March"))
        outcome = await worker(server, session).ask(call(), LIMITS)
    assert (outcome.thinking, outcome.answer) == ("well now", "in March")
    assert outcome.usage.prompt_tokens
    assert outcome.usage.cached_tokens is None
