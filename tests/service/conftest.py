"""A service on the loopback: its own code, a real HTTP client, and fake servers to ask."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from distllm.compose.serve import Place, Service, serving
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.events import Event, Noticed
from distllm.domain.hours import Hours
from distllm.domain.places import DatabasePlace
from tests.fakes.server import FakeServer

SOON = 15.0
Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the service answered."""

    status: int
    headers: Any
    body: Any


@dataclass
class House:
    """A service with its client and its worker."""

    service: Service
    client: aiohttp.ClientSession
    events: list[Event] = field(default_factory=list)

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Ask the service; a body that is JSON is read."""
        async with self.client.request(method, path, **more) as response:
            raw = await response.read()
            return Answer(
                response.status, response.headers, json.loads(raw) if "json" in response.content_type else raw
            )

    async def get(self, path: str, **more: Any) -> Answer:
        """Ask for something below the API."""
        return await self.ask("GET", f"/api/v1{path}", **more)

    async def post(self, path: str, body: object = None, **more: Any) -> Answer:
        """Send JSON to the API, or nothing."""
        if body is not None:
            more["json"] = body
        return await self.ask("POST", f"/api/v1{path}", **more)

    async def submit(self, *texts: str, prompts: tuple[str, ...] = ("What?",), **more: Any) -> Json:
        """Make a job of texts; its facts."""
        body = {"texts": [{"name": f"{n}.txt", "text": text} for n, text in enumerate(texts)], "prompts": prompts}
        answer = await self.post("/jobs", body | more)
        assert answer.status == 201, answer.body
        return dict(answer.body)

    async def until(self, met: Callable[[], Awaitable[object]], seconds: float = SOON) -> None:
        """Poll until a condition holds; TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            while not await met():  # noqa: ASYNC110 - what is polled is another's
                await asyncio.sleep(0.02)

    async def until_ended(self, job_id: int, seconds: float = SOON) -> Json:
        """Wait for the end of a job; its facts."""
        found: Json = {}

        async def ended() -> bool:
            found.update((await self.get(f"/jobs/{job_id}")).body)
            return found["finished_at"] is not None

        await self.until(ended, seconds)
        return found

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database in SQL."""
        with closing(sqlite3.connect(self.service.database.place)) as connection:
            return connection.execute(statement, values).fetchall()

    def said(self) -> list[str]:
        """What people were told."""
        return [event.text for event in self.events if isinstance(event, Noticed)]


@asynccontextmanager
async def opened(
    db: DatabasePlace,
    *servers: FakeServer,
    host: str = "127.0.0.1",
    token: str | None = None,
    names: tuple[str, ...] = (),
    hours: Hours | None = None,
    clock: Clock | None = None,
    working: bool = True,
    **settings: Any,
) -> AsyncIterator[House]:
    """A service at a free port, which works unless it is told not to."""
    workers = [
        {"id": f"w{n}", "type": "openai", "port": server.port, "model": server.model}
        for n, server in enumerate(servers)
    ] or [{"id": "gone", "type": "openai", "port": 9, "model": "fake-model"}]
    config = Config.of({"workers": workers, "health_check_interval": 0.2} | settings, "the test", {})
    events: list[Event] = []
    place = Place(host, 0, token, names)
    async with serving(db, config, lambda: place, hours, events.append, clock or Clock()) as service:
        work = asyncio.create_task(service.run.until_stopped(lambda pid: None)) if working else None
        async with aiohttp.ClientSession(service.url) as client:
            yield House(service, client, events)
        if work is not None:
            service.run.stop()
            service.run.stop()
            await asyncio.wait_for(work, SOON)


@pytest.fixture
def db(template: Path, tmp_path: Path) -> Path:
    """A new database."""
    return Path(shutil.copy(template, tmp_path / "d.db"))


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A worker."""
    async with FakeServer(slots=2, context=100_000) as running:
        yield running


@pytest.fixture
async def house(db: Path, server: FakeServer) -> AsyncIterator[House]:
    """A service that works with one worker."""
    async with opened(db, server) as found:
        yield found


@pytest.fixture
async def idle(db: Path) -> AsyncIterator[House]:
    """A service that takes jobs and does not work them."""
    async with opened(db, working=False) as found:
        yield found
