"""The loop that keeps what the workers did over time."""

import asyncio
from collections.abc import Sequence

from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.events import Answered, Event, TriedInVain
from distllm.metrics import Tally
from distllm.store.database import Database
from distllm.store.samples import Sample, add_samples, drop_samples
from distllm.store.tx import StoreError, Tx

EVERY_SECONDS = 10.0
KEPT_SECONDS = 7 * 86_400.0


class Samples:
    """Adds a sample of every worker at each step, in a commit of its own.

    A worker that was idle at its last sample and still is gets none: an idle night leaves no rows.
    """

    def __init__(self, stations: Sequence[Station], database: Database, clock: Clock) -> None:
        self._stations = stations
        self._database = database
        self._clock = clock
        self._tallies: dict[str, Tally] = {}
        self._last: dict[int, Sample] = {}

    def observe(self, event: Event) -> None:
        """Take in an event, for the next sample."""
        if isinstance(event, Answered | TriedInVain):
            self._tallies.setdefault(event.worker, Tally()).count(event)

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.step()

    async def step(self) -> int:
        """Sample every worker whose state or work there is something to say of; return how many were."""
        tallies, self._tallies = self._tallies, {}
        ours = [station for station in self._stations if station.ours]
        samples = [_sample(station, tallies.get(station.worker.name, Tally())) for station in ours]
        # Two samples without work are equal exactly where nothing has happened between them.
        new = [each for each in samples if each.requests or each.in_flight or each != self._last.get(each.worker_id)]
        now = self._clock.now()

        def transaction(tx: Tx) -> None:
            add_samples(tx, new, now)
            drop_samples(tx, now - KEPT_SECONDS)

        try:
            await self._database.write(transaction)
        except StoreError as error:
            if not error.passing:
                raise
            for name, tally in tallies.items():
                self._tallies.setdefault(name, Tally()).add(tally)
            return 0
        self._last |= {each.worker_id: each for each in new}
        return len(new)


def _sample(station: Station, tally: Tally) -> Sample:
    return Sample(
        worker_id=station.id,
        healthy=station.health is not None and station.health.healthy,
        in_flight=station.in_flight,
        requests=tally.requests,
        succeeded=tally.succeeded,
        failed=tally.failed,
        completion_tokens=tally.completion_tokens,
        seconds=tally.seconds,
    )
