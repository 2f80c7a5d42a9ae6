"""The server's own tokenizer: it counts what it would read, and what cannot be counted harms nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from distllm.domain.models import Call, Limits, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.embedded import EmbeddedWorker
from distllm.workers.session import open_session
from tests.fakes import FakeServer, tokenize

LIMITS = Limits(60, 30, 90)
PAPER = "The dam broke in March 1972, and forty houses of the lower town were lost (see Table 3).\n" * 4
CALL = Call("any", PAPER, "When did it break?", 2, 0.0, 150)
TURNS = (("user", "Is it long?"), ("assistant", "It is not."))


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


async def test_the_packaged_model_counts_what_it_then_reads(session: aiohttp.ClientSession) -> None:
    worker = EmbeddedWorker(WorkerSpec("e", WorkerType.EMBEDDED, context_length=512), session)
    assert await worker.count(CALL) is None
    await worker.probe(60)
    assert worker.counts_tokens
    for call in (CALL, replace(CALL, turns=TURNS), replace(CALL, system="")):
        assert await worker.count(call) == (await worker.ask(call, LIMITS)).usage.prompt_tokens
    longer = replace(CALL, system=100 * PAPER)
    assert (await worker.count(longer) or 0) > 4096
    assert await worker.count_tokens("yes yes yes") == 3
    await worker.close()


async def test_a_raw_prompt_is_counted_without_a_template(session: aiohttp.ClientSession) -> None:
    async with FakeServer() as server:
        worker = make_worker(WorkerSpec("w", WorkerType.OPENAI, port=server.port, endpoint="completions"), session)
        await worker.probe()
        counted = await worker.count(CALL)
        outcome = await worker.ask(CALL, LIMITS)
    assert counted == outcome.usage.prompt_tokens == len(tokenize(PAPER)) + len(tokenize(CALL.question))


@pytest.mark.parametrize("kind", ["plain", "vllm", "lm_studio", "ollama", "llamacpp without it"])
async def test_where_there_is_no_tokenizer_nothing_is_counted(kind: str, session: aiohttp.ClientSession) -> None:
    name, _, without = kind.partition(" ")
    async with FakeServer(kind=name, tokenizes=not without) as server:
        type_ = WorkerType(name) if name in list(WorkerType) else WorkerType.OPENAI
        worker = make_worker(WorkerSpec("w", type_, port=server.port), session)
        assert (await worker.probe()).healthy
        assert not worker.counts_tokens
        assert await worker.count(CALL) is None
        assert await worker.count_tokens(PAPER) is None
        assert server.counts == 0


ODD = {
    "a page": web.Response(text="<h1>no</h1>", content_type="text/html"),
    "a list": web.json_response([1, 2]),
    "no number": web.json_response({"input_tokens": "many", "tokens": 7}),
    "an error": web.json_response({"error": "no"}, status=500),
}


@pytest.mark.parametrize("odd", ODD)
async def test_who_answers_oddly_is_not_asked_again(odd: str, session: aiohttp.ClientSession) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += request.path.endswith("input_tokens")
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "owned_by": "llamacpp"}]})
        return web.json_response({"tokens": [1]}) if not asked else _again(ODD[odd])

    runner = web.AppRunner(app := web.Application())
    app.router.add_route("*", "/{path:.*}", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    worker = make_worker(WorkerSpec("w", WorkerType.OPENAI, port=runner.addresses[0][1]), session)
    await worker.probe()
    assert [await worker.count(CALL), await worker.count(CALL), await worker.count_tokens("a")] == [None] * 3
    assert asked == 1
    await runner.cleanup()


def _again(response: web.Response) -> web.Response:
    return web.Response(body=response.body, status=response.status, content_type=response.content_type)
