"""Telling kinds of server apart by what they say."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from distllm.domain.models import WorkerType
from distllm.workers.detect import detect, recognise
from distllm.workers.session import open_session
from tests.fakes import FakeServer

LM_STUDIO, OLLAMA, OPENAI = WorkerType.LM_STUDIO, WorkerType.OLLAMA, WorkerType.OPENAI


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@pytest.mark.parametrize(
    ("kind", "version", "found"),
    [
        ("ollama", None, OLLAMA),
        ("lm_studio", None, LM_STUDIO),
        ("lm_studio", "0.3.4", LM_STUDIO),
        ("llamacpp", None, OPENAI),
        ("vllm", None, OPENAI),
        ("plain", None, OPENAI),
    ],
)
async def test_each_kind_is_told_by_its_answers(
    kind: str, version: str | None, found: WorkerType, session: aiohttp.ClientSession
) -> None:
    async with FakeServer(kind=kind, version=version) as server:
        assert await detect(server.host, server.port, session) is found
        assert server.loads == []
        assert server.requests == []


@pytest.mark.parametrize(("kind", "found"), [("lm_studio", LM_STUDIO), ("llamacpp", OPENAI), ("vllm", OPENAI)])
async def test_one_that_wants_a_key_is_told_by_its_refusal(
    kind: str, found: WorkerType, session: aiohttp.ClientSession
) -> None:
    async with FakeServer(kind=kind, api_key="secret") as server:
        assert await detect(server.host, server.port, session) is found
        assert await detect(server.host, server.port, session, api_key="secret") is found


async def test_a_list_that_hangs_hides_no_ollama(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama") as server:
        server.probe_hangs = True
        assert await detect(server.host, server.port, session, timeout=0.2) is OLLAMA


async def test_where_nobody_is_there_is_none(session: aiohttp.ClientSession) -> None:
    async with FakeServer() as server:
        pass
    assert await detect(server.host, server.port, session) is None


@pytest.mark.parametrize(
    "bodies",
    [
        (None, None, None),
        ({"version": 3}, [], "page"),
        ({"error": "not found"}, {"error": "not found"}, {"error": "not found"}),
        ({}, {"models": ["a"]}, {"data": {}}),
        ({}, {"models": [{"name": "a"}]}, {}),
        ({}, {"error": {"code": "model_not_found"}}, {"error": {"type": "server_error"}}),
        ({"version": []}, {"error": {"type": [], "code": {}}}, {"error": {"type": [], "code": {}}}),
    ],
)
def test_what_is_none_of_them_is_none(bodies: tuple[object, object, object]) -> None:
    assert recognise(*bodies) is None
