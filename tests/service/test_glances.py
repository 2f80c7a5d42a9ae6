"""Where a job stands, told to many who ask again and again."""

import asyncio
import json

import pytest

from distllm.domain.clock import Clock
from distllm.domain.errors import NoJobError
from distllm.service.glances import KEPT_SECONDS, Glances
from tests.service.conftest import House

STILL = Clock(lambda: 1000.0, lambda: 1000.0)


async def test_many_who_ask_are_told_what_one_look_has_found(idle: House) -> None:
    await idle.submit("A paper.")
    glances = Glances(idle.service.database, STILL)
    first, *others = await asyncio.gather(*(glances.of(1) for _ in range(50)))
    assert all(other is first for other in others)
    assert await glances.of(1) is first


async def test_what_was_written_before_one_asks_is_told(idle: House) -> None:
    await idle.submit("A paper.")
    glances = Glances(idle.service.database, STILL)
    assert json.loads(await glances.of(1))["state"] == "pending"
    await idle.post("/jobs/1/pause")
    assert json.loads(await glances.of(1))["state"] == "paused"


async def test_nothing_is_told_for_longer_than_a_second_though_nothing_changes(idle: House) -> None:
    await idle.submit("A paper.")
    times = [1000.0, 1000.0 + KEPT_SECONDS / 2, 1000.0 + KEPT_SECONDS]
    glances = Glances(idle.service.database, Clock(ticks=lambda: times.pop(0)))
    first = await glances.of(1)
    assert await glances.of(1) is first
    assert await glances.of(1) is not first


async def test_one_who_leaves_does_not_take_the_answer_from_another(idle: House) -> None:
    await idle.submit("A paper.")
    glances = Glances(idle.service.database, STILL)
    hasty, patient = asyncio.create_task(glances.of(1)), asyncio.create_task(glances.of(1))
    await asyncio.wait({hasty}, timeout=0.001)
    hasty.cancel()
    assert json.loads(await patient)["job_id"] == 1


async def test_a_job_that_is_not_there_yet_is_looked_for_again(idle: House) -> None:
    glances = Glances(idle.service.database, STILL)
    with pytest.raises(NoJobError):
        await glances.of(1)
    await idle.submit("A paper.")
    assert json.loads(await glances.of(1))["job_id"] == 1
