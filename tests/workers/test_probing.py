"""What a probe finds out about a server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio

from distllm.domain.models import Call, Health, Limits, Offer, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.session import open_session
from tests.fakes import FakeServer


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


async def probe(server: FakeServer, session: aiohttp.ClientSession, **changes: object) -> Health:
    spec = WorkerSpec("w", WorkerType.OPENAI, host=server.host, port=server.port)
    return await make_worker(replace(spec, **changes), session).probe(timeout=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "offer", "slots"),
    [
        ("llamacpp", Offer("m", 4096, True), 3),
        ("vllm", Offer("m", 4096, None), None),
        ("plain", Offer("m", None, None, window_told=False), None),
    ],
)
async def test_models_windows_and_slots(
    kind: str, offer: Offer, slots: int | None, session: aiohttp.ClientSession
) -> None:
    async with FakeServer(kind=kind, model="m", context=4096, slots=3) as server:
        assert await probe(server, session) == Health(True, (offer,), slots)


async def test_a_window_is_configured_downwards_only(session: aiohttp.ClientSession) -> None:
    async with FakeServer(context=4096) as server:
        below = await probe(server, session, context_length=2048)
        above = await probe(server, session, context_length=9999)
    async with FakeServer(kind="plain") as silent:
        unknown = await probe(silent, session, context_length=2048)
    assert [h.offers[0].context_length for h in (below, above, unknown)] == [2048, 4096, 2048]


async def test_a_configured_model_is_the_only_offer(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="plain", models=("a", "b")) as server:
        assert [o.model for o in (await probe(server, session)).offers] == ["a", "b"]
        assert [o.model for o in (await probe(server, session, model="b")).offers] == ["b"]
        lacking = await probe(server, session, model="c")
    assert lacking == Health(True, (), None, f"{server.url}: has no model 'c'; it has a, b")


async def test_llama_cpp_answers_to_any_name(session: aiohttp.ClientSession) -> None:
    async with FakeServer(context=4096) as server:
        health = await probe(server, session, model="alias")
    assert health == Health(True, (Offer("alias", 4096, True),), 1)


@pytest.mark.parametrize(("status", "words"), [(401, "401"), (503, "503"), (500, "500")])
async def test_a_server_that_refuses_to_tell_is_not_healthy(
    status: int, words: str, session: aiohttp.ClientSession
) -> None:
    async with FakeServer() as server:
        server.probe_status = status
        health = await probe(server, session)
    assert not health.healthy
    assert words in (health.error or "")
    assert server.url in (health.error or "")


async def test_a_silent_server_is_waited_for_only_so_long(session: aiohttp.ClientSession) -> None:
    async with FakeServer() as server:
        server.probe_hangs = True
        health = await probe(server, session)
    assert health == Health(False, error=f"{server.url}: no answer within 0.5 s")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "Unexpected endpoint or method. (GET /v1/models)"}', "Unexpected endpoint"),
        (b"<html><title>Router login</title></html>", "web page: Router login"),
        (b"[]", "OpenAI-compatible"),
        (b'{"data": 3}', "OpenAI-compatible"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
    ],
)
async def test_the_body_counts_and_not_the_status(body: bytes, words: str, session: aiohttp.ClientSession) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        health = await probe(FakeServer(port=port), session)
    assert not health.healthy
    assert words in (health.error or "")


async def test_who_a_worker_is(session: aiohttp.ClientSession) -> None:
    spec = WorkerSpec("w", WorkerType.OPENAI, scheme="https", host="Studio.local", port=8443)
    worker = make_worker(spec, session)
    assert (worker.name, worker.type, worker.weight) == ("w", WorkerType.OPENAI, 1.0)
    assert worker.identity == "https://studio.local:8443"
    assert worker.health_endpoint == "https://studio.local:8443/v1/models"
    assert make_worker(replace(spec, host="fe80::1"), session).identity == "https://[fe80::1]:8443"


async def test_a_paper_of_megabytes_is_sent(session: aiohttp.ClientSession) -> None:
    async with FakeServer(context=10**9) as server:
        spec = WorkerSpec("w", WorkerType.OPENAI, host=server.host, port=server.port)
        call = Call("m", "é" * 500_000, "Why?", 9, 0.0, 1)
        outcome = await make_worker(spec, session).ask(call, Limits(20, 20, 20))
        assert outcome.error is None
        assert server.requests[0].system == call.system


async def test_ollama_is_not_asked_by_the_api_that_cuts(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama") as server:
        health = await probe(server, session)
    assert not health.healthy
    assert health.error == f"{server.url}: is Ollama, which cuts long prompts here; give it type 'ollama'"
