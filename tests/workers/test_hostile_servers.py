"""Servers that send without end, or what expands without end: each costs little time, little memory, and one line."""

import asyncio
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from distllm.domain.models import ErrorClass, Limits, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.base import Worker
from distllm.workers.detect import detect
from tests.fakes.flood import BLOCK, Flood, flooding, head
from tests.workers.worker_kit import call

# The module's tests share one session, as workers do.
pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = Limits(first_token=1, between_chunks=1, total=2)
MOST_BYTES = 32_000_000
MOST_MEMORY = 48_000_000
KINDS = (WorkerType.OPENAI, WorkerType.OLLAMA)


def worker(flood: Flood, kind: WorkerType, session: aiohttp.ClientSession) -> Worker:
    return make_worker(WorkerSpec("w", kind, port=flood.port), session)


@asynccontextmanager
async def bounded(flood: Flood) -> AsyncIterator[None]:
    """What is done within reads a little of a flood, and keeps less of it."""
    tracemalloc.start()
    try:
        async with asyncio.timeout(20):
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert flood.sent < MOST_BYTES
    assert peak < MOST_MEMORY


def bomb(content: bytes, times: int) -> bytes:
    """The same many times, of which hardly a thousandth is sent."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(content) for _ in range(times)), packer.flush()])


MANY_MODELS = b'{"object": "list", "data": [' + b", ".join(b'{"id": "model-%d"}' % n for n in range(1_000_000)) + b"]}"
ZIPPED = "Content-Encoding: gzip"
NEVER = {
    "a header line": Flood([b"HTTP/1.1 200 OK\r\nX-Long: "], b"x" * BLOCK),
    "headers": Flood([b"HTTP/1.1 200 OK\r\n"], b"X-More: again\r\n" * 5_000),
    "a status line": Flood([b"HTTP/1.1 200 "], b"O" * BLOCK),
    "trailers": Flood([head("200 OK", "Transfer-Encoding: chunked"), b"0\r\n"], b"X-More: again\r\n" * 5_000),
    "an error": Flood([head("500 Oh", f"Content-Length: {10**9}")], b"no " * 30_000),
    "a line": Flood([head()], b'{"a": "' + b"x" * BLOCK),
    "blanks": Flood([head()], b" " * BLOCK),
    "blank lines": Flood([head()], (b"\n" + b" " * 999) * 100),
    "comments": Flood([head(kind="text/event-stream")], (b": " + b"still here" * 100 + b"\n\n") * 100),
    "models": Flood([head(), b'{"object": "list", "data": ['], b'{"id": "a model"}, ' * 5_000),
    "a million models": Flood([head("200 OK", f"Content-Length: {len(MANY_MODELS)}"), MANY_MODELS]),
    "a bomb": Flood([head("200 OK", ZIPPED), bomb(b"\0" * 1_000_000, 200)]),
    "a bomb of an error": Flood([head("500 Oh", ZIPPED), bomb(b"no " * 300_000, 200)]),
    "a bomb of comments": Flood(
        [head("200 OK", ZIPPED, kind="text/event-stream"), bomb((b": " + b"hm" * 500 + b"\n\n") * 1000, 200)]
    ),
    "a drip": Flood([head()], b" ", pause=0.1),
    "a drip of headers": Flood([b"HTTP/1.1 200 OK\r\nX-Long: "], b"x", pause=0.1),
    "redirects": Flood([head("302 Found", "Location: /v1/models", "Content-Length: 0")]),
}


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_an_answer_without_end_is_given_up(name: str, kind: WorkerType, session: aiohttp.ClientSession) -> None:
    async with flooding(NEVER[name]) as flood:
        flood.sent = 0
        async with bounded(flood):
            outcome = await worker(flood, kind, session).ask(call(), LIMITS)
    assert outcome.error_class in (ErrorClass.BROKEN, ErrorClass.LOST, ErrorClass.SETUP), outcome
    assert len(outcome.error or "") <= 300
    assert outcome.seconds < 10


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_probe_without_end_is_given_up(name: str, kind: WorkerType, session: aiohttp.ClientSession) -> None:
    async with flooding(NEVER[name]) as flood:
        flood.sent = 0
        async with bounded(flood):
            health = await worker(flood, kind, session).probe(0.5)
            found = await detect("127.0.0.1", flood.port, session, 0.5)
    assert not health.healthy
    assert health.error
    assert len(health.error) <= 300
    assert found is None


DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
ERRORS_IN_ERRORS = b'{"error":' * 900 + b'"at last"' + b"}" * 900
LISTS_IN_AN_ERROR = b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}"
NESTED = {
    "objects": (200, DEEP),
    "an error in errors": (200, ERRORS_IN_ERRORS),
    "a list of lists": (200, LISTS_IN_AN_ERROR),
    "objects of an error": (500, DEEP),
    "errors in an error": (500, ERRORS_IN_ERRORS),
    "lists of an error": (500, LISTS_IN_AN_ERROR),
    "JSON in JSON": (500, json.dumps({"error": json.dumps({"error": json.dumps({"error": "at last"})})}).encode()),
    "a number": (200, b'{"error": 1' + b"0" * 10_000 + b"}"),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("kind", [*KINDS, WorkerType.LM_STUDIO], ids=str)
async def test_json_within_json_is_no_way_to_break_a_worker(
    name: str, kind: WorkerType, session: aiohttp.ClientSession
) -> None:
    status, body = NESTED[name]
    async with flooding(Flood([head(f"{status} X", f"Content-Length: {len(body)}"), body])) as flood:
        asked = worker(flood, kind, session)
        outcome, health = await asked.ask(call(), LIMITS), await asked.probe()
        assert await detect("127.0.0.1", flood.port, session) is None
    assert outcome.error_class is ErrorClass.BROKEN
    assert outcome.error
    assert len(outcome.error) <= 300
    assert not health.healthy
    assert "unexpected" not in (health.error or "") + outcome.error


HALF = "\\ud800"
TOLD = [
    {"id": f"half a character {HALF}"},
    {"id": "a\0b"},
    {"id": "x" * 100_000},
    {"id": "odd", "aliases": 7, "meta": {"n_ctx": 2**80}, "max_model_len": -1},
    {"id": "even", "aliases": "odd", "meta": [1], "max_model_len": "4096"},
]


@pytest.mark.parametrize("wanted", [None, "odd"])
async def test_of_what_a_server_tells_only_what_can_be_kept_is_believed(
    wanted: str | None, session: aiohttp.ClientSession
) -> None:
    body = json.dumps({"data": [each | {"owned_by": "llamacpp"} for each in TOLD], "total_slots": 2**40})
    data = body.replace("\\\\ud800", HALF).encode()
    async with flooding(Flood([head("200 OK", f"Content-Length: {len(data)}"), data])) as flood:
        spec = WorkerSpec("w", WorkerType.OPENAI, port=flood.port, model=wanted)
        health = await make_worker(spec, session).probe()
    assert health.healthy
    assert [(offer.model, offer.context_length) for offer in health.offers] == [("odd", None), ("even", None)][
        : 1 if wanted else 2
    ]
    assert health.slots == 1024


async def test_of_very_many_models_the_first_are_taken_in(session: aiohttp.ClientSession) -> None:
    data = json.dumps({"data": [{"id": f"m{number}"} for number in range(5_000)]}).encode()
    async with flooding(Flood([head("200 OK", f"Content-Length: {len(data)}"), data])) as flood:
        health = await worker(flood, WorkerType.OPENAI, session).probe()
        named = await make_worker(WorkerSpec("w", WorkerType.OPENAI, port=flood.port, model="m4999"), session).probe()
    assert [offer.model for offer in health.offers] == [f"m{number}" for number in range(1_000)]
    assert [offer.model for offer in named.offers] == ["m4999"]
