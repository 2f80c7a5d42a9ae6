"""Whoever watches services is told whether this one lives, and whether it can do its work."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distllm.service import health
from distllm.store.locks import coordinator_lock
from tests.service.conftest import House, opened


async def test_a_service_that_works_is_ready(house: House) -> None:
    await house.until(lambda: _ready(house))
    ready = (await house.ask("GET", "/health/ready")).body
    assert ready | {"status": "ready", "database": "writable", "coordinating": True} == ready
    assert (await house.ask("GET", "/health/live")).body == {"status": "alive"}


async def test_a_service_without_a_coordinator_is_not(idle: House) -> None:
    answer = await idle.ask("GET", "/health/ready")
    assert (answer.status, answer.body["coordinator"]) == (503, None)
    assert (await idle.ask("GET", "/health/live")).status == 200
    # Another process may be the coordinator: then all that is submitted is worked.
    lock = coordinator_lock(idle.service.database.place)
    assert lock.try_acquire()
    answer = await idle.ask("GET", "/health/ready")
    assert (answer.status, answer.body["coordinating"]) == (200, False)
    lock.release()


async def test_a_database_that_another_program_holds_is_told_in_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WRITE_SECONDS", 0.2)
    await house.until(lambda: _ready(house))
    with closing(sqlite3.connect(house.service.database.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answers = await asyncio.wait_for(
            asyncio.gather(*(house.ask("GET", "/health/ready") for _ in range(5))), health.WRITE_SECONDS + 5
        )
        assert {(answer.status, answer.body["database"]) for answer in answers} == {(503, "busy")}
        assert (await house.ask("GET", "/health/live")).status == 200
        other.execute("ROLLBACK")
    await house.until(lambda: _ready(house))


async def _ready(house: House) -> bool:
    return (await house.ask("GET", "/health/ready")).status == 200


async def test_one_that_was_told_to_stop_is_not_ready_and_takes_no_jobs(db: Path) -> None:
    async with opened(db, working=False) as house:
        lock = coordinator_lock(house.service.database.place)
        assert lock.try_acquire()
        house.service.run.stop()
        assert (await house.ask("GET", "/health/ready")).status == 503
        asked = {"texts": [{"name": "a", "text": "A."}], "prompts": ["What?"]}
        answer = await house.post("/jobs", asked)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        lock.release()
