"""The loop that notices how jobs change, whoever changes them."""

import asyncio

from distllm.service.hub import Hub
from distllm.store.reads import Reader, Record

EVERY_SECONDS = 0.5


class Pulse:
    """Looks at the database's change counter while somebody listens, and at the jobs only when it has moved."""

    def __init__(self, reader: Reader, hub: Hub) -> None:
        self._reader = reader
        self._hub = hub
        self._changes = -1
        self._seen: dict[int, Record] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(EVERY_SECONDS)

    async def step(self) -> int:
        """Look once; tell of each job that is new or has changed, and return how many they are.

        What changed while nobody listened is told once somebody does.
        """
        if self._seen is not None and not self._hub.has_listeners:
            return 0
        changes = await self._reader.changes()
        if changes == self._changes:
            return 0
        self._changes = changes
        jobs = {job["job_id"]: job for job in await self._reader.jobs()}
        before, self._seen = self._seen, jobs
        if before is None:
            return 0
        changed = [job for job_id, job in jobs.items() if before.get(job_id) != job]
        for job in changed:
            self._hub.publish("job", job)
        for job_id in before.keys() - jobs.keys():
            self._hub.publish("job_removed", {"job_id": job_id})
        return len(changed)
