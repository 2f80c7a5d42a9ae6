"""The loop that asks one worker how it is."""

import asyncio
from collections.abc import Callable

from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.errors import DistllmError
from distllm.domain.events import Listener, WorkerChanged
from distllm.domain.models import Health
from distllm.store.database import Database
from distllm.store.fleet import note_health
from distllm.store.tx import StoreError

PROBE_TIMEOUT_SECONDS = 5.0
SOONEST_SECONDS = 0.5

AT_ONCE = 100
"""How many workers are looked at together: of a thousand at once, those that answer would seem to be late."""


class Probe:
    """Starts a worker if it is ours to start, and looks at its health every `interval` seconds.

    A worker that is not healthy is looked at sooner, at intervals that double. A busy worker that misses a
    probe is not dead: what it answers proves more. `turn` bounds how many look at once.
    """

    def __init__(
        self,
        station: Station,
        database: Database,
        interval: float,
        listener: Listener,
        changed: Callable[[], None],
        clock: Clock,
        turn: asyncio.Semaphore,
    ) -> None:
        self._station = station
        self._database = database
        self._interval = interval
        self._tell = listener
        self._changed = changed
        self._clock = clock
        self._turn = turn
        self._wait = SOONEST_SECONDS
        self._told: tuple[bool, str | None] | None = None

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._wait)

    async def step(self) -> Health:
        """Probe once and keep what was found."""
        health = await self._look()
        before = self._station.health
        missed_while_busy = not health.healthy and before is not None and self._station.busy
        if missed_while_busy:
            self._station.silent = True
            return health
        was_healthy = before is None or before.healthy
        sooner = SOONEST_SECONDS if was_healthy else 2 * self._wait
        self._wait = self._interval if health.healthy else min(sooner, self._interval)
        self._station.note(health)
        if not self._station.ours:
            # Whose it is tells what becomes of it.
            self._changed()
            return health
        breaker = self._station.breaker.state(self._clock.ticks())
        now = self._clock.now()
        try:
            await self._database.write(lambda tx: note_health(tx, self._station.id, health, breaker, now))
        except StoreError as error:
            if not error.passing:
                raise
        # What was found while it was another's has been told to nobody here.
        if self._told != (found := (health.healthy, health.error)):
            self._told = found
            self._tell(WorkerChanged(self._station.worker.name, *found))
        self._changed()
        return health

    async def _look(self) -> Health:
        try:
            await self._station.worker.start()
        except DistllmError as error:
            return Health(healthy=False, error=str(error))
        async with self._turn:
            return await self._station.worker.probe(PROBE_TIMEOUT_SECONDS)
