"""Fixtures of the contract suite; everything in it shares one event loop and one session a module."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from distllm.workers.session import open_session
from tests.fakes import FakeServer
from tests.workers.worker_kit import ADAPTERS, Adapter


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@pytest.fixture(params=ADAPTERS, ids=str)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    found: Adapter = request.param
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def fake(adapter: Adapter) -> AsyncIterator[FakeServer]:
    async with adapter.server() as server:
        yield server
