"""Where a job stands, told to many who ask again and again."""

import asyncio
import json
from typing import Any

import pytest

from distllm.domain.clock import Clock
from distllm.domain.errors import NoJobError
from distllm.insights import JobNow, job_now
from distllm.service import glances as glances_module
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
    ticks = 1000.0
    glances = Glances(idle.service.database, Clock(ticks=lambda: ticks))
    first = await glances.of(1)
    ticks += KEPT_SECONDS / 2
    assert await glances.of(1) is first
    ticks += KEPT_SECONDS / 2
    assert await glances.of(1) is not first


async def test_while_much_changes_those_who_ask_wait_together_for_the_next_look(idle: House) -> None:
    await idle.submit("A paper.")
    glances = Glances(idle.service.database, STILL)
    before = await glances.of(1)
    early = asyncio.create_task(glances.of(1))
    await asyncio.sleep(0)
    await idle.post("/jobs/1/pause")
    late = await glances.of(1)
    assert json.loads(late)["state"] == "paused"
    assert await early is late is not before


async def test_a_slow_look_is_waited_for_and_not_begun_again(idle: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await idle.submit("A paper.")
    at_once = most_at_once = 0

    async def slow_look(*given: Any) -> JobNow:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await asyncio.sleep(0.1)
        at_once -= 1
        return await job_now(*given)

    monkeypatch.setattr(glances_module, "job_now", slow_look)
    glances = Glances(idle.service.database, Clock())
    asking = []
    for _ in range(20):
        asking.append(asyncio.create_task(glances.of(1)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*asking)
    assert most_at_once == 1


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
