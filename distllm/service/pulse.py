"""The loop that notices how jobs change, whoever changes them."""

import asyncio
import logging
import sqlite3

from distllm.service.hub import Hub
from distllm.store.pages import lively_jobs
from distllm.store.reads import Reader, Record
from distllm.store.tx import StoreError

EVERY_SECONDS = 0.5

logger = logging.getLogger("distllm.service")


class Pulse:
    """Looks at the database's change counter while somebody listens, and at the jobs only when it has moved."""

    def __init__(self, reader: Reader, hub: Hub) -> None:
        self._reader = reader
        self._hub = hub
        self._changes = -1
        self._last: int | None = None
        self._unended: dict[int, Record] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.step()
            except (sqlite3.Error, StoreError) as error:
                logger.error("what jobs do is not told for now: %s", error)
            await asyncio.sleep(EVERY_SECONDS)

    async def step(self) -> int:
        """Look once; tell of each job that is new or has changed, and return how many they are.

        What changed while nobody listened is told once somebody does.
        """
        first = self._last is None
        if not (first or self._hub.has_listeners):
            return 0
        changes = await self._reader.changes()
        if changes == self._changes:
            return 0
        jobs = await lively_jobs(self._reader, self._unended, self._last or 0)
        self._changes = changes
        changed = [] if first else [job for job in jobs if self._unended.get(job["job_id"]) != job]
        self._last = max([self._last or 0, *(job["job_id"] for job in jobs)])
        self._unended = {job["job_id"]: job for job in jobs if job["finished_at"] is None}
        for job in changed:
            self._hub.publish("job", job)
        return len(changed)
