"""The loop that keeps a coordinator alive among others, and tells its stations which of them are its own."""

import asyncio
from collections.abc import Sequence, Set

from distllm.balancer.sharing import share_out
from distllm.dispatcher.station import Station
from distllm.dispatcher.turns import Turns
from distllm.domain.clock import Clock
from distllm.store.database import Database
from distllm.store.fleet import knowledge_of, note_health
from distllm.store.hearts import Beat, Heart, LostError
from distllm.store.tx import StoreError, Tx

EVERY_SECONDS = 0.5
FRESH_SECONDS = 1.0
"""Nothing is sent while the last renewal is older than this."""

LEFTOVERS_EVERY_SECONDS = 10.0
SHORTEST_COVER_SECONDS = 10.0
COVER = 1.5
"""How much longer than the request at hand others are told that there may be one, so that few have to wait for that."""

LATELY_SECONDS = 60.0
"""For so long at least others are told of the longest request; those of a worker whose rate is not known are long."""


class Presence:
    """Renews, takes workers and gives them back, and buries the dead.

    Each worker is one coordinator's at a time, so that whatever holds for a worker holds over all coordinators: its
    seats, its breaker, its rates and what it has cached.
    """

    def __init__(self, heart: Heart, stations: Sequence[Station], database: Database, clock: Clock) -> None:
        self.lost: str | None = None
        self._elsewhere: frozenset[int] = frozenset()
        self._heart = heart
        self._stations = {station.id: station for station in stations}
        self._database = database
        self._clock = clock
        self._turns: Turns | None = None
        self._longest = 0.0
        self._longest_before = 0.0
        self._lately_until = 0.0
        self._sent_until = 0.0
        self._beaten = -1.0
        self._covered_until = 0.0
        self._due = asyncio.Event()
        self._renewed = asyncio.Event()
        self._leftovers_due = 0.0
        for station in stations:
            station.ours = False
        heart.hear_loss(lambda: self._lose("the connection to the database was lost"))

    async def run(self, turns: Turns) -> None:
        """Keep alive until cancelled; once it is lost, what is in flight is stopped at once."""
        self._turns = turns
        while self.lost is None:
            try:
                await self.step()
            except LostError as error:
                self._lose(str(error))
            except StoreError:
                # The next renewal tells whether it is still alive.
                pass
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()

    async def step(self) -> Beat:
        """Renew once, and do what is found to be due. Raises LostError."""
        wanting = self._turns is None or self._turns.claiming
        busy = {each.id for each in self._stations.values() if any(True for _ in each.leases())}
        idle = [each for each in self._stations.values() if each.id not in busy and (each.leaving or not wanting)]
        for station in idle:
            station.ours = False
        began = self._clock.ticks()
        cover = self._cover(began)
        # What is sent meanwhile must be covered whichever of the two renewals counts.
        self._covered_until = min(self._covered_until, began + cover)
        wanted = list(self._stations) if wanting else []
        beat = await self._heart.beat(wanted, [each.id for each in idle], cover if wanting or busy else 0.0)
        self._elsewhere = frozenset(worker for worker, owner in beat.owners.items() if owner in beat.wanted)
        self._elsewhere -= self._stations.keys()
        self._beaten, self._covered_until = began, began + cover
        self._renewed.set()
        self._renewed = asyncio.Event()
        await self._share(beat, wanting=wanting)
        if beat.dead or self._clock.ticks() >= self._leftovers_due:
            self._leftovers_due = self._clock.ticks() + LEFTOVERS_EVERY_SECONDS
            await self._bury()
        return beat

    def elsewhere(self) -> frozenset[int]:
        """The workers that are others' now, and that this coordinator does not know."""
        return self._elsewhere

    async def may_send(self, seconds: float) -> bool:
        """Wait until others know that a request of so many seconds may be in flight; false if they never will."""
        while self.lost is None:
            now = self._clock.ticks()
            self._longest = max(self._longest, seconds)
            if now - self._beaten <= FRESH_SECONDS and now + seconds <= self._covered_until:
                self._sent_until = max(self._sent_until, now + seconds)
                return True
            self._due.set()
            await self._renewed.wait()
        return False

    def _cover(self, now: float) -> float:
        """For how many seconds there may be requests, of those that have been sent or are like those of late."""
        if now >= self._lately_until:
            self._lately_until = now + LATELY_SECONDS
            self._longest_before, self._longest = self._longest, 0.0
        longest = max(self._longest, self._longest_before)
        return max(SHORTEST_COVER_SECONDS, COVER * longest, self._sent_until - now)

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
            self._due.set()
            self._renewed.set()
            if self._turns is not None:
                self._turns.abort()

    async def _share(self, beat: Beat, *, wanting: bool) -> None:
        if not wanting:
            return
        share = set(share_out(beat.wanted, beat.owners, self._heart.id, self._least_to_end))
        for worker_id in beat.ours & self._stations.keys():
            station = self._stations[worker_id]
            station.ours, station.leaving = True, worker_id not in share
        if free := share.intersection(beat.free):
            await self._adopt(await self._heart.take(free))

    def _least_to_end(self, worker_id: int) -> tuple[bool, int, int]:
        """The order in which workers are given back."""
        station = self._stations[worker_id]
        return not station.leaving, sum(1 for _ in station.leases()), worker_id

    async def _adopt(self, taken: Set[int]) -> None:
        """Begin with workers that have been another's, or nobody's."""
        stations = [self._stations[worker_id] for worker_id in sorted(taken)]
        now, ticks = self._clock.now(), self._clock.ticks()

        def transaction(tx: Tx) -> None:
            known = knowledge_of(tx, [station.id for station in stations])
            for station in stations:
                station.take_over(known[station.id])
                if station.health is not None:
                    note_health(tx, station.id, station.health, station.breaker.state(ticks), now)

        await self._database.write(transaction)
        self._wake()

    async def _bury(self) -> None:
        now = self._clock.now()
        if await self._database.write(lambda tx: self._heart.bury(tx, now)):
            self._wake()

    def _wake(self) -> None:
        if self._turns is not None:
            self._turns.wake()
