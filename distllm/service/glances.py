"""Where jobs stand, told to many who ask again and again: worked out if something changed, a few times a second."""

import asyncio
from dataclasses import dataclass

from distllm.domain.clock import Clock
from distllm.insights import job_now
from distllm.service.models import Job
from distllm.store.database import Database

KEPT_SECONDS = 1.0
"""How long the same is told while nothing changes: a coordinator may die without a word, and time goes on."""

APART_SECONDS = 0.25
"""How far looks at a job are apart; all who ask meanwhile are told what the next one finds."""

MOST_JOBS = 100


@dataclass(frozen=True, slots=True)
class _Glance:
    changes: int
    at: float
    text: str


class Glances:
    """The facts of jobs as JSON. What was written before one is asked for is in it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._kept: dict[int, _Glance] = {}
        self._next: dict[int, asyncio.Task[str]] = {}
        self._running: dict[int, asyncio.Task[str]] = {}

    async def of(self, job_id: int) -> str:
        """Where a job stands. Raises NoJobError if there is none."""
        look = self._next.get(job_id)
        if look is None:
            look = self._next[job_id] = asyncio.create_task(self._look(job_id))
        # One who leaves does not take the answer from the others.
        return await asyncio.shield(look)

    async def _look(self, job_id: int) -> str:
        if (running := self._running.get(job_id)) is not None:
            await asyncio.wait({running})
        kept = self._kept.get(job_id)
        if kept is not None:
            await asyncio.sleep(kept.at + APART_SECONDS - self._clock.ticks())
        # Who asks from here on may have written what this look does not see.
        self._running[job_id] = self._next.pop(job_id)
        try:
            return await self._text(job_id, kept)
        finally:
            del self._running[job_id]

    async def _text(self, job_id: int, kept: _Glance | None) -> str:
        changes = await self._database.read.changes()
        if kept is not None and kept.changes == changes and self._clock.ticks() - kept.at < KEPT_SECONDS:
            return kept.text
        found = await job_now(self._database.read, job_id, self._clock.now())
        text = Job.model_validate(found.facts()).model_dump_json()
        self._kept.pop(job_id, None)
        self._kept[job_id] = _Glance(changes, self._clock.ticks(), text)
        if len(self._kept) > MOST_JOBS:
            del self._kept[next(iter(self._kept))]
        return text
