"""What befalls the coordinators and their database, one thing after another, as the seed decides."""

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from distllm.store.postgres.heart import ALIVE_SECONDS, FROZEN_SECONDS
from tests.cluster.calls import Calls
from tests.cluster.coordinators import Coordinators, Life
from tests.cluster.watch import Watch
from tests.postgres_server import PostgresServer

FROZEN_FOR_SECONDS = FROZEN_SECONDS + ALIVE_SECONDS + 2
ASLEEP_FOR_SECONDS = 30.0
"""By then others ask its workers, unless it has told them of a request that takes longer."""

FREEZES = {"freeze": FROZEN_FOR_SECONDS, "freeze within": FROZEN_FOR_SECONDS, "sleep": ASLEEP_FOR_SECONDS}
KINDS = {"kill": 6, "cut off": 3, "freeze": 1, "freeze within": 2, "sleep": 1}
"""How often each is chosen."""

WITHIN_TRIES = 100
CRASHED_FOR_SECONDS = 1.0
STEADY_SECONDS = 3.0
"""Who has had nothing befall it for so long, and works, is there to take over."""

START_SECONDS = 3.0
"""How soon a process that has told how much is answered is a coordinator."""

_CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name = $1 OR starts_with(application_name, $1 || ' ')
"""
_WITHIN = """
SELECT 1 FROM pg_stat_activity WHERE application_name = $1 AND state LIKE 'idle in transaction%'
"""
_WORKING = "SELECT DISTINCT pid FROM coordinators WHERE ended_at IS NULL AND alive_until IS NOT NULL"


@dataclass(slots=True)
class Faults:
    """Hits one after another; `follow` is given what goes on after one of them. `done` is the share of the prompts."""

    coordinators: Coordinators
    server: PostgresServer
    watch: Watch
    calls: Calls
    rng: Random
    between: float
    stops: int
    done: Callable[[], float]
    follow: Callable[[str, object], object]
    counts: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    within: int = 0
    away: list[float] = field(default_factory=list)

    def excused(self, life: Life) -> bool:
        """Whether one may have ended since the database was away before it was a coordinator."""
        crashes = [each for each in self.calls.faults if each.kind == "crash" and (each.until or math.inf) > life.born]
        return any(each.since < life.born + START_SECONDS or "answered" not in life.said() for each in crashes)

    async def go_on(self) -> None:
        """Hit until cancelled."""
        while True:
            await asyncio.sleep(self.between)
            if self.counts["crash"] < self.stops and self.done() > (self.counts["crash"] + 1) / (self.stops + 1):
                await self._crash()
                continue
            working = {row[0] for row in await self.watch.ask(_WORKING)}
            awake = [life for life in self.coordinators.alive() if life.pid in working and not life.frozen]
            steady = [life for life in awake if time.monotonic() > life.touched + STEADY_SECONDS]
            may_be_hit = [life for life in awake if any(other is not life for other in steady)]
            if may_be_hit:
                await self._hit(self.rng.choice(may_be_hit))

    async def _hit(self, life: Life) -> None:
        kinds = {kind: weight for kind, weight in KINDS.items() if kind not in FREEZES or not self._any_frozen()}
        [kind] = self.rng.choices(list(kinds), list(kinds.values()))
        life.touched = time.monotonic()
        self.counts[kind] += 1
        match kind:
            case "kill":
                self.calls.hit(kind, life.name).until = time.monotonic()
                life.send(signal.SIGKILL)
                self.follow(f"follow {life.name}", self.watch.follow(life.pid))
            case "cut off":
                fault = self.calls.hit(kind, life.name)
                self.cut += (await self.watch.ask(_CUT_OFF, f"distllm {life.pid}"))[0][0]
                fault.until = time.monotonic()
            case _:
                self.follow(f"{kind} {life.name}", self._freeze(life, kind))

    def _any_frozen(self) -> bool:
        return any(life.frozen for life in self.coordinators.alive())

    async def _freeze(self, life: Life, kind: str) -> None:
        fault = self.calls.hit(kind, life.name)
        life.frozen = True
        life.send(signal.SIGSTOP)
        if kind == "freeze within":
            await self._thaw_until_within(life)
        await asyncio.sleep(FREEZES[kind])
        life.send(signal.SIGCONT)
        life.frozen = False
        life.touched = fault.until = time.monotonic()

    async def _thaw_until_within(self, life: Life) -> None:
        """Let it go on for moments until it is frozen within a transaction of its own, or of its proof of life."""
        connection = f"distllm {life.pid}{self.rng.choice(['', ' alive'])}"
        for _ in range(WITHIN_TRIES):
            # What the server was doing for it ends meanwhile.
            await asyncio.sleep(0.005)
            if await self.watch.ask(_WITHIN, connection):
                self.within += 1
                return
            life.send(signal.SIGCONT)
            await asyncio.sleep(self.rng.uniform(0, 0.02))
            life.send(signal.SIGSTOP)

    async def _crash(self) -> None:
        self.counts["crash"] += 1
        fault = self.calls.hit("crash", None)
        await asyncio.to_thread(self.server.crash)
        await asyncio.sleep(CRASHED_FOR_SECONDS)
        await asyncio.to_thread(self.server.start)
        fault.until = time.monotonic()
        self.away.append(fault.until - fault.since)
        for life in self.coordinators.alive():
            life.touched = time.monotonic()
