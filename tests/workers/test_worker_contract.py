"""What every adapter promises, over real sockets, against fakes that behave in every known way, well and
badly. What the real llama.cpp server promises too is in `test_worker_contract_alive.py`."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import aiohttp
import pytest

from distllm.domain.models import ErrorClass, Limits, WorkerType
from distllm.workers.session import open_session
from tests.fakes import Behaviour, Ending, FakeServer, behaviour
from tests.workers.worker_kit import ADAPTERS, LONG, SHORT, Adapter, call

pytestmark = pytest.mark.asyncio(loop_scope="module")

b = behaviour
WRONG: dict[str, tuple[Behaviour, ErrorClass, str]] = {
    "busy": (b.BUSY, ErrorClass.BUSY, "Loading model"),
    "too many requests": (b.TOO_MANY, ErrorClass.BUSY, "429"),
    "pool full": (b.POOL_FULL, ErrorClass.BUSY, "Context size has been exceeded"),
    "pool full, in the stream": (
        b.fails_inside({"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}),
        ErrorClass.BUSY,
        "Context size",
    ),
    "prompt too long": (b.TOO_LONG, ErrorClass.INPUT, "3001 tokens"),
    "n_keep": (b.N_KEEP, ErrorClass.INPUT, "n_keep: 13055"),
    "n_keep, in the stream": (b.fails_inside(b.N_KEEP.body["error"], 0), ErrorClass.INPUT, "n_keep"),  # type: ignore[index]
    "bad schema": (b.BAD_SCHEMA, ErrorClass.INPUT, "schema"),
    "wrong key": (b.WRONG_KEY, ErrorClass.SETUP, "Invalid API Key"),
    "no such model": (b.NO_MODEL, ErrorClass.SETUP, "model 'x' not found"),
    "unknown identifier": (b.UNKNOWN_IDENTIFIER, ErrorClass.SETUP, "Invalid model identifier"),
    "unexpected endpoint, said with 200": (b.UNEXPECTED_ENDPOINT, ErrorClass.SETUP, "Unexpected endpoint"),
    "redirect": (Behaviour(status=302, body=b""), ErrorClass.SETUP, "302"),
    "page of a proxy": (b.PROXY_PAGE, ErrorClass.BROKEN, "502 Bad Gateway"),
    "page with 200": (b.PAGE_200, ErrorClass.BROKEN, "web page: Log in"),
    "crash": (b.CRASHED, ErrorClass.LOST, "terminated"),
    "reset before any byte": (b.RESET, ErrorClass.LOST, ""),
    "error object in the stream": (
        b.fails_inside({"message": "it fell over"}),
        ErrorClass.BROKEN,
        "fell over",
    ),
    "error string in the stream": (b.fails_inside("it fell over"), ErrorClass.BROKEN, "fell over"),
    "error before the first token": (b.fails_inside("it fell over", 0), ErrorClass.BROKEN, "fell over"),
    "end without marker": (b.BREAKS_OFF, ErrorClass.BROKEN, "end marker"),
    "reset in the middle": (b.ABORTS, ErrorClass.LOST, "broke off"),
    "marker without reason": (Behaviour(ending=Ending.NO_REASON), ErrorClass.BROKEN, "finish reason"),
    "no marker, no usage": (
        Behaviour(ending=Ending.NO_DONE, usage=False),
        ErrorClass.BROKEN,
        "end marker",
    ),
    "odd finish reason": (Behaviour(finish_reason="abort"), ErrorClass.BROKEN, "'abort'"),
    "empty text with stop": (b.EMPTY, ErrorClass.BROKEN, "empty answer"),
    "only reasoning": (b.ONLY_THINKS, ErrorClass.BROKEN, "only reasoning"),
    "only reasoning in tags": (Behaviour(answer="<think> hm hm"), ErrorClass.BROKEN, "only reasoning"),
    "silence before the headers": (Behaviour(headers_after=9), ErrorClass.BROKEN, "no token within"),
    "silence before the first token": (b.HANGS, ErrorClass.BROKEN, "no token within"),
    "pings are no tokens": (
        Behaviour(first_token_after=9, pings=90),
        ErrorClass.BROKEN,
        "no token within",
    ),
    "silence in the middle": (b.STALLS, ErrorClass.BROKEN, "in the middle"),
    "slow drip": (b.DRIPS, ErrorClass.BROKEN, "no end of the answer"),
    "tokens without end": (b.ENDLESS, ErrorClass.BROKEN, "beyond the 12 tokens"),
    "line without end": (Behaviour(padding=5 * 2**20), ErrorClass.BROKEN, "line without end"),
    "not JSON": (Behaviour(body=b"data: {nonsense\n\n"), ErrorClass.BROKEN, "not JSON"),
    "odd JSON": (Behaviour(body=b'data: {"choices": [[]], "usage": 7}\n\n'), ErrorClass.BROKEN, "end marker"),
    "odd lines of JSON": (Behaviour(body=b'{"message": [], "done": "yes"}\n'), ErrorClass.BROKEN, "end marker"),
    "a line that is no object": (Behaviour(body=b"[1]\n"), ErrorClass.BROKEN, "not JSON"),
    "queue full": (b.QUEUE_FULL, ErrorClass.BUSY, "maximum pending requests"),
    "the load failed": (b.LOAD_FAILED, ErrorClass.BROKEN, "timed out waiting"),
    "the same token for ever": (b.REPEATS, ErrorClass.BROKEN, "token repeat limit"),
    "a host that it does not know": (Behaviour(status=403, body=b""), ErrorClass.SETUP, "403"),
    "no thoughts": (b.THINKS_NOT, ErrorClass.SETUP, "does not support thinking"),
    "not loaded": (b.NOTHING_LOADED, ErrorClass.SETUP, "No models loaded"),
    "too large to load": (b.GUARDRAIL, ErrorClass.SETUP, "Failed to load"),
    "unloaded in the middle": (b.fails_inside({"message": "The model was unloaded"}), ErrorClass.BROKEN, "unloaded"),
}
TIMED = {name for name, (_, _, words) in WRONG.items() if words in ("no token within", "in the middle")}
TIMED |= {"slow drip", "line without end"}
ONLY_OF = {
    WorkerType.OLLAMA: {
        *("odd lines of JSON", "a line that is no object", "queue full", "the load failed"),
        *("the same token for ever", "a host that it does not know", "no thoughts"),
    },
    WorkerType.LM_STUDIO: {"not loaded", "too large to load", "unloaded in the middle"},
}
NOT_OF = {WorkerType.OLLAMA: {"odd JSON", "pings are no tokens"}}


def wrongs() -> Iterator[tuple[Adapter, str]]:
    """What can go wrong with each adapter; what takes its time is tried with one endpoint of each."""
    for adapter in ADAPTERS:
        others = [names for kind, names in ONLY_OF.items() if kind is not adapter.type]
        left_out = NOT_OF.get(adapter.type, set()).union(*others, TIMED if adapter.raw else ())
        yield from ((adapter, wrong) for wrong in WRONG if wrong not in left_out)


@pytest.mark.parametrize(("adapter", "wrong"), list(wrongs()), indirect=["adapter"], ids=str)
async def test_whatever_goes_wrong_has_a_class_and_a_line(
    wrong: str, adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    treatment, error_class, words = WRONG[wrong]
    fake.behave(treatment)
    outcome = await adapter.worker(fake, session).ask(call(), SHORT)
    assert outcome.error_class is error_class, outcome.error
    assert outcome.error is not None
    assert words in outcome.error
    assert outcome.error.startswith(f"{fake.url}: ")
    assert len(outcome.error) <= 300
    assert outcome.error.isprintable()
    assert (outcome.answer, outcome.finish_reason) == ("", None)
    assert outcome.seconds < 3
    assert len(fake.requests) == 1, "retrying is not the adapter's business"
    again = await adapter.worker(fake, session).ask(call(), LONG)
    assert again.error is None, "a bad answer spoils nothing for the next one"


async def test_thinking_is_kept_though_there_is_no_answer(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    fake.behave(b.ONLY_THINKS)
    outcome = await adapter.worker(fake, session).ask(call(), LONG)
    assert outcome.thinking == "let me see what the paper says"


async def test_nobody_listens(adapter: Adapter, session: aiohttp.ClientSession) -> None:
    async with adapter.server() as server:
        worker = adapter.worker(server, session)
    outcome = await worker.ask(call(), LONG)
    health = await worker.probe()
    assert outcome.error_class is ErrorClass.REFUSED
    assert not health.healthy
    assert server.url in (health.error or "")


async def test_a_name_that_nobody_knows(adapter: Adapter, session: aiohttp.ClientSession) -> None:
    outcome = await adapter.worker(FakeServer(), session, host="no-such-host.invalid", port=1).ask(call(), LONG)
    assert outcome.error_class is ErrorClass.REFUSED


async def test_a_server_that_hangs_may_still_say_that_it_is_well(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    worker = adapter.worker(fake, session)
    fake.behave(b.HANGS)
    outcome, health = await asyncio.gather(worker.ask(call(), SHORT), worker.probe())
    assert health.healthy
    assert outcome.error_class is ErrorClass.BROKEN


async def test_the_key_is_sent_and_never_told(adapter: Adapter, session: aiohttp.ClientSession) -> None:
    key = "sk-very-secret"
    echo = Behaviour(status=401, body={"error": {"message": f"Incorrect API key provided: {key}" + "." * 400}})
    async with adapter.server(api_key=key) as server:
        worker = adapter.worker(server, session, api_key=key)
        assert (await worker.probe()).healthy
        assert (await worker.ask(call(), LONG)).error is None
        server.behave(echo)
        told = await worker.ask(call(), LONG)
        refused = await adapter.worker(server, session).ask(call(), LONG)
    assert key not in (told.error or "")
    assert "***" in (told.error or "")
    assert refused.error_class is ErrorClass.SETUP
    assert key not in repr(worker.spec)


# --- what goes well, though oddly ----------------------------------------------------------------------

RIGHT: dict[str, Behaviour] = {
    "plain": b.GOOD,
    "pings before the first token": b.PINGS,
    "no role first": Behaviour(role_first=False),
    "a line of 300 kB": b.LONG_LINE,
    "crumbs of three bytes": Behaviour(crumbs=3),
    "CRLF": Behaviour(line_end="\r\n", crumbs=5),
    "no [DONE] after reason and usage": Behaviour(ending=Ending.NO_DONE),
    "no usage": Behaviour(usage=False),
    "a tenth of the prompt lost": b.A_TENTH_LOST,
}


def rights() -> Iterator[tuple[Adapter, str]]:
    """What goes well with each adapter."""
    for adapter in ADAPTERS:
        left_out = {"no [DONE] after reason and usage"} if adapter.type is WorkerType.OLLAMA else {}
        yield from ((adapter, right) for right in RIGHT if right not in left_out)


@pytest.mark.parametrize(("adapter", "right"), list(rights()), indirect=["adapter"], ids=str)
async def test_an_answer_is_one(adapter: Adapter, right: str, fake: FakeServer, session: aiohttp.ClientSession) -> None:
    text = "In März: the dâm broke: 堤防 🌊 yes"
    fake.behave(replace(RIGHT[right], answer=text))
    outcome = await adapter.worker(fake, session).ask(call(), replace(SHORT, total=3))
    assert outcome.error is None
    assert (outcome.answer, outcome.finish_reason, outcome.model) == (text, "stop", "fake-model")
    assert outcome.first_token_seconds is not None
    assert outcome.first_token_seconds <= outcome.seconds


async def test_whoever_listens_hears_an_answer_as_it_comes(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    heard: list[str] = []
    fake.behave(Behaviour(answer="It broke in March.", per_token=0.02))
    listened = replace(call(), hear=lambda text, thinking: heard.append(text))
    outcome = await adapter.worker(fake, session).ask(listened, LONG)
    assert "".join(heard).strip() == outcome.answer == "It broke in March."
    assert len(heard) > 2


async def test_the_form_of_an_answer_is_asked_for_or_the_call_is_refused(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    formed = replace(call(), extra=(("response_format", {"type": "json_object"}),))
    outcome = await adapter.worker(fake, session).ask(formed, LONG)
    if adapter.raw and adapter.type is not WorkerType.OLLAMA:
        assert (outcome.error_class, fake.requests) == (ErrorClass.INPUT, [])
    else:
        assert (outcome.error_class, len(fake.requests)) == (None, 1)


async def test_thinking_is_kept_apart(adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession) -> None:
    worker = adapter.worker(fake, session)
    fake.behave(Behaviour(thinking="well now", answer="in March"))
    fake.behave(Behaviour(answer="<think>\n well now </think>\n\n in March"))
    for _ in range(2):
        outcome = await worker.ask(call(), LONG)
        assert (outcome.thinking, outcome.answer) == ("well now", "in March")


async def test_a_cut_answer_is_kept_and_marked(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    fake.behave(Behaviour(answer="one two three four"))
    outcome = await adapter.worker(fake, session).ask(call(max_tokens=3), LONG)
    assert (outcome.answer, outcome.finish_reason, outcome.error) == ("one two three", "length", None)


async def test_a_long_silence_is_fine_within_the_limit_to_the_first_token(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    fake.behave(Behaviour(first_token_after=0.3))
    limits = Limits(first_token=5, between_chunks=0.1, total=6)
    outcome = await adapter.worker(fake, session).ask(call(), limits)
    assert outcome.error is None
    assert (outcome.first_token_seconds or 0) >= 0.3


async def test_an_answer_in_one_json_is_understood(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    message = {"role": "assistant", "content": "in March"}
    whole: dict[str, object] = {"model": "fake-model"}
    if adapter.type is WorkerType.OLLAMA:
        whole |= {"message": message, "response": "", "done": True, "done_reason": "stop"}
    else:
        whole |= {"choices": [{"message": message, "text": "in March", "finish_reason": "stop"}]}
    fake.behave(Behaviour(body=whole))
    outcome = await adapter.worker(fake, session).ask(call(), LONG)
    assert (outcome.answer, outcome.error) == ("in March", None)


async def test_every_request_has_a_connection_of_its_own(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    worker = adapter.worker(fake, session)
    for _ in range(3):
        assert (await worker.ask(call(), LONG)).error is None
    assert fake.connections == 3


async def test_a_connection_is_used_again_where_that_is_asked_for(adapter: Adapter, fake: FakeServer) -> None:
    async with open_session(keep_alive=4.0) as keeping:
        worker = adapter.worker(fake, keeping)
        for _ in range(3):
            assert (await worker.ask(call(), LONG)).error is None
    assert fake.connections == 1


async def test_a_restart_of_the_server_is_survived(
    adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession
) -> None:
    worker = adapter.worker(fake, session)
    assert (await worker.ask(call(), LONG)).error is None
    await fake.stop()
    assert (await worker.ask(call(), LONG)).error_class is ErrorClass.REFUSED
    await fake.start()
    assert (await worker.ask(call(), LONG)).error is None


async def test_what_is_sent(adapter: Adapter, fake: FakeServer, session: aiohttp.ClientSession) -> None:
    extra = (("seed", 7), ("max_tokens", 9), ("stream", False), ("messages", []), ("prompt", "no"))
    worker = adapter.worker(fake, session, extra=extra)
    await worker.ask(replace(call("Why?", system="A paper.", max_tokens=24), turns=(("user", "Hm."),)), LONG)
    (seen,) = fake.requests
    messages = [
        {"role": "system", "content": "A paper."},
        {"role": "user", "content": "Hm."},
        {"role": "user", "content": "Why?"},
    ]
    body = {"prompt": "A paper.\n\nHm.\n\nWhy?"} if adapter.raw else {"messages": messages}
    body |= {"model": "fake-model", "stream": True, "seed": 7}
    if adapter.type is WorkerType.OLLAMA:
        body |= {"options": {"num_predict": 24, "temperature": 0.0}, "truncate": False, "shift": False}
        body |= {"keep_alive": "30m", "max_tokens": 9} | ({"raw": True} if adapter.raw else {"think": False})
    else:
        body |= {"max_tokens": 24, "temperature": 0.0, "stream_options": {"include_usage": True}}
    assert seen.body == body
    assert "Origin" not in seen.headers
    assert worker.api_endpoint == f"{fake.url}{seen.path}"
