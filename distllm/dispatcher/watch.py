"""The loop that notices what other processes change: new jobs, paused ones, and leases that were taken away."""

import asyncio

from distllm.dispatcher.turns import Turns
from distllm.store.reads import Reader
from distllm.store.tx import StoreError

EVERY_SECONDS = 0.5


class Watch:
    """Looks at the database's change counter, and at the leases only when it has moved."""

    def __init__(self, reader: Reader, turns: Turns, me: int) -> None:
        self._reader = reader
        self._turns = turns
        self._me = me
        self._seen = -1

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.step()
            except StoreError as error:
                if not error.passing:
                    raise

    async def step(self) -> bool:
        """Look once; true if anything had changed."""
        changes = await self._reader.changes()
        if changes == self._seen:
            return False
        self._seen = changes
        # Noted before the database is read, so a lease that is newer than what was read is never taken for lost.
        known = self._turns.leases()
        lost = known - await self._reader.held(self._me)
        self._turns.give_up(lost, await self._reader.paused())
        self._turns.wake()
        return True
