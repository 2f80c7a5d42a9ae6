"""Where jobs stand, told to many who ask again and again: worked out once for each change of the database."""

import asyncio
from dataclasses import dataclass

from distllm.domain.clock import Clock
from distllm.insights import job_now
from distllm.service.models import Job
from distllm.store.database import Database

KEPT_SECONDS = 1.0
"""How long the same is told while nothing changes: a coordinator may die without a word, and time goes on."""

MOST_JOBS = 100


@dataclass(frozen=True, slots=True)
class _Glance:
    changes: int
    at: float
    text: asyncio.Task[str]


class Glances:
    """The facts of jobs as JSON. What was written before one is asked for is in it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._kept: dict[int, _Glance] = {}

    async def of(self, job_id: int) -> str:
        """Where a job stands. Raises NoJobError if there is none."""
        changes = await self._database.read.changes()
        kept, now = self._kept.get(job_id), self._clock.ticks()
        if kept is None or kept.changes != changes or now - kept.at >= KEPT_SECONDS:
            kept = _Glance(changes, now, asyncio.create_task(self._look(job_id)))
            self._kept.pop(job_id, None)
            self._kept[job_id] = kept
            if len(self._kept) > MOST_JOBS:
                del self._kept[next(iter(self._kept))]
        # One who leaves does not take the answer from the others.
        return await asyncio.shield(kept.text)

    async def _look(self, job_id: int) -> str:
        now = await job_now(self._database.read, self._database.path, job_id, self._clock.now())
        return Job.model_validate(now.facts()).model_dump_json()
