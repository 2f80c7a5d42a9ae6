"""What only Ollama does: windows that requests choose, loads, prompts cut in silence, and lines of JSON."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio

from distllm.domain.models import Call, ErrorClass, Extra, Health, Limits, Offer, WorkerSpec, WorkerType
from distllm.domain.tokens import estimate_tokens
from distllm.workers.ollama import OllamaWorker
from distllm.workers.session import open_session
from tests.fakes import Behaviour, Ending, FakeServer, behaviour
from tests.workers.worker_kit import PAPER, call

LIMITS = Limits(5, 5, 10)
MODEL = "fake-model"


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def ollama(**settings: object) -> FakeServer:
    return FakeServer(**{"kind": "ollama", "context": 4096, **settings})  # type: ignore[arg-type]


def worker(server: FakeServer, session: aiohttp.ClientSession, **changes: object) -> OllamaWorker:
    spec = WorkerSpec("w", WorkerType.OLLAMA, host=server.host, port=server.port)
    return OllamaWorker(replace(spec, **changes), session)  # type: ignore[arg-type]


def long_call(words: int) -> Call:
    system = "dam " * words
    return Call(MODEL, system, "Why?", 12, 0.0, estimate_tokens(system))


async def one_offer(asked: OllamaWorker) -> Offer:
    health = await asked.probe()
    assert health.healthy, health.error
    (offer,) = health.offers
    return offer


# --- the window ----------------------------------------------------------------------------------------


async def test_a_window_is_not_told_before_the_model_is_loaded_and_then_it_is(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        before = await one_offer(asked)
        assert (before.context_length, before.loaded, before.window_told) == (None, False, False)
        await asked.ask(call(), LIMITS)
        after = await one_offer(asked)
        assert (after.context_length, after.loaded, after.window_told) == (4096, True, True)
        assert server.loads == [(MODEL, 4096)]


async def test_a_probe_loads_nothing(session: aiohttp.ClientSession) -> None:
    async with ollama(models=("a:latest", "b:8b")) as server:
        health = await worker(server, session, context_length=2048).probe()
        assert [offer.model for offer in health.offers] == ["a:latest", "b:8b"]
        assert server.loads == []


async def test_the_same_window_is_asked_for_every_time(session: aiohttp.ClientSession) -> None:
    async with ollama(loaded=(MODEL,), context=2048) as server:
        asked = worker(server, session)
        await asked.probe()
        await asked.ask(call("One?"), LIMITS)
        # Someone else has it loaded with another window meanwhile.
        await worker(server, session, context_length=1024).ask(call("Two?"), LIMITS)
        await asked.probe()
        await asked.ask(call("Three?"), LIMITS)
        assert [seen.body["options"].get("num_ctx") for seen in server.requests] == [2048, 1024, 2048]


async def test_without_any_window_known_the_server_keeps_its_own(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        await asked.ask(call("One?"), LIMITS)
        await asked.probe()
        await asked.ask(call("Two?"), LIMITS)
        assert ["num_ctx" in seen.body["options"] for seen in server.requests] == [False, False]
        assert len(server.loads) == 1
        assert server.requests[1].cached_tokens > 0, "a reload would have lost the paper"


async def test_a_configured_window_is_asked_for_and_only_then_believed(session: aiohttp.ClientSession) -> None:
    async with ollama(loaded=(MODEL,)) as server:
        asked = worker(server, session, context_length=8192)
        before = await one_offer(asked)
        assert (before.context_length, before.window_told) == (8192, False), "a request will have it reloaded"
        await asked.ask(call(), LIMITS)
        after = await one_offer(asked)
        assert (after.context_length, after.window_told) == (8192, True)
        assert server.loads == [(MODEL, 8192)]


async def test_a_window_beyond_what_the_model_was_made_for_is_not_offered(session: aiohttp.ClientSession) -> None:
    async with ollama(context=1024) as server:
        asked = worker(server, session, context_length=100_000)
        assert (await one_offer(asked)).context_length == 4096
        await asked.ask(call(), LIMITS)
        assert (await one_offer(asked)).context_length == 4096


async def test_a_window_among_the_options_counts_as_configured(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        extra = (("options", {"num_ctx": 2048, "top_p": 0.9, "num_predict": 1}), ("keep_alive", -1), ("think", True))
        asked = worker(server, session, extra=extra)
        server.thinks = "hm"
        assert (await one_offer(asked)).context_length == 2048
        await asked.ask(call(max_tokens=9), LIMITS)
        body = server.requests[0].body
        assert body["options"] == {"num_ctx": 2048, "top_p": 0.9, "num_predict": 9, "temperature": 0.0}
        assert (body["keep_alive"], body["think"]) == (-1, True)


async def test_what_was_learnt_holds_while_the_model_is_unloaded(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        await asked.ask(call(), LIMITS)
        await worker(server, session, extra=(("keep_alive", 0),)).ask(call(), LIMITS)
        offer = await one_offer(asked)
        assert (offer.context_length, offer.loaded, offer.window_told) == (4096, False, False)


async def test_the_first_answer_brings_the_window_that_it_met(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        first, second = [await asked.ask(call(question), LIMITS) for question in ("One?", "Two?")]
        assert (first.window, second.window) == (4096, None), "asked once"
    async with ollama(context=512) as server:
        refused = await worker(server, session).ask(long_call(600), LIMITS)
        assert (refused.error_class, refused.window) == (ErrorClass.INPUT, 512)
    async with ollama(context=1024) as server:
        asked = worker(server, session, context_length=100_000)
        await asked.probe()
        assert (await asked.ask(call(), LIMITS)).window == 4096, "what the model was made for"


# --- prompts that do not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
@pytest.mark.parametrize("renders", [True, False])
async def test_a_prompt_that_does_not_fit_is_refused_and_never_cut(
    endpoint: str, renders: bool, session: aiohttp.ClientSession
) -> None:
    async with ollama(context=512, renders=renders) as server:
        asked = worker(server, session, endpoint=endpoint)
        outcome = await asked.ask(long_call(600), LIMITS)
        turned = await asked.ask(replace(long_call(100), turns=(("user", "dam " * 500),)), LIMITS)
    assert (outcome.error_class, outcome.answer) == (ErrorClass.INPUT, "")
    assert "512" in (outcome.error or "")
    assert turned.error_class is ErrorClass.INPUT


async def test_the_version_that_counts_no_cached_tokens_is_not_believed(session: aiohttp.ClientSession) -> None:
    async with ollama(version="0.30.0") as server:
        asked = worker(server, session)
        await asked.probe()
        outcomes = [await asked.ask(call(question), LIMITS) for question in ("One?", "Two?")]
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [outcome.usage.prompt_tokens for outcome in outcomes] == [None, None]


async def test_an_answer_ends_where_the_window_does(session: aiohttp.ClientSession) -> None:
    async with ollama(context=512) as server:
        server.answer = lambda _: "word " * 900
        outcome = await worker(server, session).ask(replace(long_call(400), max_tokens=800), LIMITS)
    assert (outcome.error, outcome.finish_reason) == (None, "length")


# --- answers -------------------------------------------------------------------------------------------


async def test_a_model_that_thinks_is_told_not_to(session: aiohttp.ClientSession) -> None:
    async with ollama(thinks="let me see now") as server:
        asked = worker(server, session)
        outcome = await asked.ask(call(max_tokens=3), LIMITS)
        thoughtful = await worker(server, session, extra=(("think", True),)).ask(call(), LIMITS)
    assert (outcome.answer, outcome.thinking) == ("Answer to: When", None)
    assert (thoughtful.thinking or "", thoughtful.error) == ("let me see now", None)


async def test_a_raw_prompt_gets_no_template(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        await worker(server, session, endpoint="completions").ask(call("Why?", system="A paper."), LIMITS)
    (seen,) = server.requests
    assert (seen.path, seen.body["prompt"], seen.templated) == ("/api/generate", "A paper.\n\nWhy?", False)


async def test_only_the_first_question_about_a_text_tells_how_fast_it_is_read(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        first, second = [await asked.ask(call(question), LIMITS) for question in ("One?", "Two?")]
        other = await asked.ask(call("One?", system="another paper " * 40), LIMITS)
    assert first.usage.prefill_seconds == pytest.approx(0.002 * (first.usage.prompt_tokens or 0))
    assert (second.usage.prefill_seconds, second.usage.cached_tokens) == (None, None)
    assert second.usage.prompt_tokens == first.usage.prompt_tokens
    assert other.usage.prefill_seconds is not None


async def test_the_answer_that_had_the_model_loaded_tells_how_long_that_took(session: aiohttp.ClientSession) -> None:
    async with ollama(seconds_to_load=0.02) as server:
        asked = worker(server, session)
        first, second = [await asked.ask(call(question), LIMITS) for question in ("One?", "Two?")]
    assert (first.usage.load_seconds, second.usage.load_seconds) == (0.02, None)


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        (Behaviour(ending=Ending.NO_DONE), "end marker"),
        (Behaviour(finish_reason="load"), "'load'"),
        (Behaviour(finish_reason="unload"), "'unload'"),
        (behaviour.fails_inside("token repeat limit reached"), "repeat limit"),
        (behaviour.fails_inside(""), "no text"),
        (Behaviour(body=b'{"message": {"content": "half'), "not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_end_is_no_answer(treatment: Behaviour, words: str, session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        server.behave(treatment)
        outcome = await worker(server, session).ask(call(), LIMITS)
    assert outcome.error_class is ErrorClass.BROKEN
    assert words in (outcome.error or "")


async def test_a_runner_that_goes_down_in_the_middle_is_lost_with_all_it_had(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        server.behave(behaviour.fails_inside("llama-server process has terminated: signal: killed"))
        outcome = await worker(server, session).ask(call(), LIMITS)
    assert outcome.error_class is ErrorClass.LOST
    assert "terminated" in (outcome.error or "")


# --- loading, hanging, leaving -------------------------------------------------------------------------


async def test_a_slow_load_is_silence_before_the_first_token(session: aiohttp.ClientSession) -> None:
    async with ollama(seconds_to_load=0.3) as server:
        asked = worker(server, session)
        outcome = await asked.ask(call(), Limits(5, 0.1, 6))
        assert outcome.error is None
        impatient = await worker(server, session, context_length=1024).ask(call(), Limits(0.1, 0.1, 1))
        await server.until(lambda: server.aborted_loads == 1)
    assert impatient.error_class is ErrorClass.BROKEN
    assert len(server.loads) == 1


async def test_a_list_of_what_is_loaded_that_hangs_is_no_sign_of_death(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        await asked.ask(call(), LIMITS)
        await asked.probe()
        server.ps_hangs = True
        health = await asked.probe(timeout=0.4)
        assert health.healthy
        (offer,) = health.offers
        assert (offer.context_length, offer.loaded, offer.window_told) == (4096, None, True)


# --- models --------------------------------------------------------------------------------------------


async def test_models_that_write_here_are_offered_with_their_digests(session: aiohttp.ClientSession) -> None:
    names = ("llama3.1:8b", "nomic-embed-text:latest", "gpt-oss:120b-cloud")
    async with ollama(models=names) as server:
        health = await worker(server, session).probe()
        cloud = await worker(server, session, model="gpt-oss:120b-cloud").probe()
    (offer,) = health.offers
    assert offer.model == "llama3.1:8b"
    assert len(offer.digest or "") == 64
    assert [each.model for each in cloud.offers] == ["gpt-oss:120b-cloud"], "asked for by name"


async def test_a_name_without_a_tag_means_the_latest(session: aiohttp.ClientSession) -> None:
    async with ollama(models=("llama3.1:8b", "llama3.1:latest")) as server:
        asked = worker(server, session, model="llama3.1")
        offer = await one_offer(asked)
        outcome = await asked.ask(replace(call(), model=offer.model), LIMITS)
        assert (offer.model, outcome.error) == ("llama3.1", None)
        assert (await one_offer(asked)).loaded is True
        lacking = await worker(server, session, model="qwen3").probe()
    error = f"{server.url}: has no model 'qwen3'; it has llama3.1:8b, llama3.1:latest"
    assert lacking == Health(True, (), None, error)


async def test_a_model_that_it_does_not_have_is_a_matter_of_setup(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        outcome = await worker(server, session).ask(replace(call(), model="gone:7b"), LIMITS)
    assert outcome.error_class is ErrorClass.SETUP
    assert "model 'gone:7b' not found" in (outcome.error or "")


@pytest.mark.parametrize("kind", ["lm_studio", "llamacpp", "plain"])
async def test_what_is_no_ollama_is_not_healthy(kind: str, session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind=kind) as server:
        health = await worker(server, session).probe()
    assert not health.healthy
    assert (health.error or "").startswith(server.url)
    assert (health.error or "").endswith("; is its type right?")


async def test_a_list_as_ollamas_makes_no_ollama(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        server.version = None
        health = await worker(server, session).probe()
    assert health == Health(False, error=f"{server.url}: answers, but not as Ollama does; is its type right?")


async def test_facts_of_a_model_are_asked_once(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        asked = worker(server, session)
        for _ in range(3):
            await asked.probe()
        assert server.shown == 1


async def test_questions_at_once_load_once(session: aiohttp.ClientSession) -> None:
    async with ollama(seconds_to_load=0.05, slots=2) as server:
        asked = worker(server, session)
        outcomes = await asyncio.gather(*(asked.ask(call(f"{n}?", system=PAPER), LIMITS) for n in range(4)))
        assert [outcome.error for outcome in outcomes] == [None] * 4
        assert len(server.loads) == 1


async def test_what_a_call_asks_beyond_its_text_has_ollamas_names(session: aiohttp.ClientSession) -> None:
    schema = {"type": "object"}
    async with ollama() as server:
        asked = worker(server, session, extra=(("options", {"top_p": 0.9, "mirostat": 1}),))
        extra: Extra = (
            ("response_format", {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}),
            ("seed", 3),
            ("stop", ["END"]),
            ("top_p", 0.5),
        )
        assert (await asked.ask(replace(call(), extra=extra), LIMITS)).error_class is None
        await asked.ask(replace(call(), extra=(("response_format", {"type": "json_object"}),)), LIMITS)
        await asked.ask(call(), LIMITS)
    options = server.requests[0].body["options"]
    assert options == options | {"seed": 3, "stop": ["END"], "top_p": 0.5, "mirostat": 1}
    assert [seen.body.get("format") for seen in server.requests] == [schema, "json", None]
    assert server.requests[2].body["options"]["top_p"] == 0.9


async def test_what_ollama_has_no_name_for_is_refused_and_not_left_out(session: aiohttp.ClientSession) -> None:
    async with ollama() as server:
        outcome = await worker(server, session).ask(replace(call(), extra=(("logit_bias", {"5": 1}),)), LIMITS)
        assert (outcome.error_class, server.requests) == (ErrorClass.INPUT, [])
        assert "logit_bias" in (outcome.error or "")
