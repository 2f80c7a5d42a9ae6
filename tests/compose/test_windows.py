"""The window that a job's documents are split for: the largest that its model has in the fleet."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from distllm.compose.fleet import open_fleet
from distllm.compose.run import largest_window
from distllm.config import Config
from distllm.domain.models import Health, Offer
from distllm.store.database import Database, open_database
from distllm.store.fleet import know_worker, note_health
from distllm.workers.embedded import EmbeddedWorker
from tests.fakes.server import FakeServer


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "d.db") as opened:
        yield opened


def worker(server: FakeServer, **more: Any) -> dict[str, Any]:
    return {"id": f"w{server.port}", "type": "openai", "host": server.host, "port": server.port} | more


async def window(database: Database, model: str, *workers: dict[str, Any], **more: Any) -> int | None:
    config = Config.of({"workers": list(workers)} | more, "the test", {})
    async with open_fleet(config) as fleet:
        return await largest_window(database, fleet, model)


async def test_the_largest_that_a_server_tells_for_the_model_counts(database: Database) -> None:
    async with (
        FakeServer(model="m", context=4096) as small,
        FakeServer(model="m", context=8192) as large,
        FakeServer(model="other", context=65536) as other,
    ):
        assert await window(database, "m", worker(small), worker(large), worker(other)) == 8192
        assert await window(database, "other", worker(small), worker(other)) == 65536
        assert await window(database, "nobody's", worker(small), worker(other)) is None
        assert await window(database, "any", worker(small), worker(other)) == 65536


async def test_names_that_mean_one_model_are_one(database: Database) -> None:
    async with FakeServer(model="llama3.1:8b", context=4096) as server:
        models = {"llama-8b": ["llama3.1:8b", "meta-llama-3.1-8b-instruct"]}
        assert await window(database, "llama-8b", worker(server)) is None
        assert await window(database, "llama-8b", worker(server), models=models) == 4096


async def test_what_is_configured_counts_where_the_server_does_not_tell(database: Database) -> None:
    async with FakeServer(model="m", kind="plain") as server:
        assert await window(database, "m", worker(server)) is None
        assert await window(database, "m", worker(server, context_length=2048)) == 2048


async def test_what_one_that_is_silent_told_last_counts_for_it(database: Database) -> None:
    async with FakeServer(model="m", context=4096) as up, FakeServer(model="m", context=16384) as down:
        down.probe_status = 503
        assert await window(database, "m", worker(up), worker(down)) == 4096, "nobody knows it"
        health = Health(healthy=True, offers=(Offer("m", 16384), Offer("other", 99999)))

        def told(tx: Any) -> None:
            note_health(tx, know_worker(tx, f"http://127.0.0.1:{down.port}", "down", "openai"), health, "closed", 1.0)

        await database.write(told)
        assert await window(database, "m", worker(up), worker(down)) == 16384
        assert await window(database, "any", worker(up), worker(down)) == 99999


async def test_the_embedded_worker_is_not_started_to_tell_what_is_known(database: Database) -> None:
    config = Config.of({"workers": [{"id": "own", "type": "embedded", "context_length": 1024}]}, "the test", {})
    async with open_fleet(config) as fleet:
        [(own, _)] = fleet.workers
        assert await largest_window(database, fleet, "any") == 1024
        assert isinstance(own, EmbeddedWorker)
        assert own.pid is None
