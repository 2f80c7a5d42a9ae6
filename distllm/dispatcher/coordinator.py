"""The coordinator's life: take over what the dead left, work, and leave in order."""

import asyncio
import math
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from distllm.balancer.models import ANY_MODEL
from distllm.balancer.policies import Policy
from distllm.dispatcher.judge import Judge
from distllm.dispatcher.presence import Presence
from distllm.dispatcher.probes import AT_ONCE, Probe
from distllm.dispatcher.samples import Samples
from distllm.dispatcher.station import UNTOLD_WINDOW, Station
from distllm.dispatcher.turns import Turns
from distllm.dispatcher.waits import Waits
from distllm.dispatcher.watch import Watch
from distllm.domain.clock import Clock
from distllm.domain.events import Listener, Noticed, to_all
from distllm.domain.hours import Hours
from distllm.store.database import Database
from distllm.store.factors import known_factors
from distllm.store.failures import fail_unfit
from distllm.store.fleet import know_workers, knowledge_of, register, retire, windows_of
from distllm.store.hearts import Heart
from distllm.store.leases import reclaim
from distllm.store.submissions import finish_jobs
from distllm.store.suspects import condemn
from distllm.store.tx import StoreError, Tx
from distllm.workers.base import Worker

AGAIN_SECONDS = 0.5
"""How soon a coordinator that lost its connection tries again to be one."""

LEAVE_SECONDS = 8.0
"""How long a coordinator that must go tries to write what has ended; what it cannot write is asked again."""


async def _surely(_: float) -> bool:
    """Where a lock proves the coordinator alive, others know it as long as it lives."""
    return True


def _nobody() -> frozenset[int]:
    """Where there is one coordinator only, it knows all workers."""
    return frozenset()


class Coordinator:
    """Works all runnable jobs of a database on the given workers.

    Where there may be one only, its caller holds the coordinator's lock.

    `workers` come each with the number of seats that is configured for it, None to ask the server.
    `no_worker_limit` is how many seconds it waits at first for a worker that can answer. `keep_samples` has it
    keep what the workers did over time. It leases only within `hours`, where they are given.
    """

    def __init__(
        self,
        database: Database,
        workers: Sequence[tuple[Worker, int | None]],
        policy: Policy,
        *,
        aliases: Sequence[Sequence[str]],
        health_check_interval: float,
        request_timeout: float,
        max_retries: int,
        seats_in_all: int | None,
        no_worker_limit: float,
        listener: Listener,
        clock: Clock,
        rng: Random,
        keep_samples: bool = False,
        hours: Hours | None = None,
    ) -> None:
        self._database = database
        self._workers = workers
        self._policy = policy
        self._aliases = aliases
        self._health_check_interval = health_check_interval
        self._request_timeout = request_timeout
        self._max_retries = max_retries
        self._seats_in_all = seats_in_all
        self._no_worker_limit = no_worker_limit
        self._tell = listener
        self._clock = clock
        self._rng = rng
        self._keep_samples = keep_samples
        self._hours = hours
        self._resting = False
        self._turns: Turns | None = None
        self._stopping = False
        self._aborted = False
        self._leave_by = math.inf
        self._judged: tuple[dict[str, int], frozenset[int]] = {}, frozenset()

    def stop(self) -> None:
        """Lease no more; `run` returns when what is in flight has ended."""
        self._stopping = True
        if self._turns is not None:
            self._turns.stop_claiming()

    def abort(self) -> None:
        """Stop now: what is in flight goes back to be asked again."""
        self._stopping = self._aborted = True
        self._leave_by = min(self._leave_by, self._clock.ticks() + LEAVE_SECONDS)
        # A write that another program holds up must not hold up the leaving.
        self._database.hurry(LEAVE_SECONDS)
        if self._turns is not None:
            self._turns.abort()

    async def run(self, wanted: Callable[[int], bool] | None) -> None:
        """Work until no job that is `wanted` is left unfinished, or until told to stop: only then, if that is None.

        Raises NoWorkerError if nobody could answer at first, StoreError if the database is broken.
        """
        old: int | None = None
        while True:
            old = await self._live(wanted, old)
            if old is None or self._stopping:
                return

    async def _live(self, wanted: Callable[[int], bool] | None, old: int | None) -> int | None:
        """Work as one coordinator, until the end or until that is lost; then return its id.

        `old` is the one that was lost before.
        """
        heart = await self._heart(old)
        if heart is None:
            if old is None:
                await self._coordinate(None, wanted)
            return None
        try:
            return heart.id if await self._coordinate(heart, wanted) else None
        except StoreError as error:
            if not error.passing:
                raise
            return heart.id
        finally:
            await heart.close()

    async def _coordinate(self, heart: Heart | None, wanted: Callable[[int], bool] | None) -> bool:
        """Work until the end, or until `heart` is lost: then that is true."""
        me, stations, judge = await self._take_over(heart)
        presence = None if heart is None else Presence(heart, stations, self._database, self._clock)
        elsewhere = _nobody if presence is None else presence.elsewhere
        samples = Samples(stations, self._database, self._clock) if self._keep_samples else None
        tell = self._tell if samples is None else to_all((self._tell, samples.observe))
        turns = self._turns = Turns(
            database=self._database,
            stations=stations,
            policy=self._policy,
            judge=judge,
            me=me,
            request_timeout=self._request_timeout,
            max_retries=self._max_retries,
            seats_in_all=self._seats_in_all,
            may_send=_surely if presence is None else presence.may_send,
            elsewhere=elsewhere,
            listener=tell,
            clock=self._clock,
            rng=self._rng,
        )
        if self._stopping:
            turns.stop_claiming()
        loops = [asyncio.create_task(Watch(self._database.read, turns, me).run())]
        turn = asyncio.Semaphore(AT_ONCE)
        for station in stations:
            probe = Probe(station, self._database, self._health_check_interval, tell, turns.wake, self._clock, turn)
            loops.append(asyncio.create_task(probe.run()))
        if samples is not None:
            loops.append(asyncio.create_task(samples.run()))
        alive = [] if presence is None else [asyncio.create_task(presence.run(turns))]
        try:
            await self._work(turns, stations, [*loops, *alive], presence, elsewhere, wanted)
        finally:
            for loop in loops:
                loop.cancel()
            await self._leave(turns, me, lost=presence is not None and presence.lost is not None)
            # Alive for others until nothing is in flight any more.
            for loop in alive:
                loop.cancel()
            await asyncio.gather(*loops, *alive, return_exceptions=True)
            if samples is not None:
                with suppress(StoreError):
                    await samples.step()
        if presence is None or presence.lost is None:
            return False
        self._tell(Noticed(f"{presence.lost}; what was in flight is asked again"))
        return True

    async def _heart(self, old: int | None) -> Heart | None:
        """What proves this coordinator alive among others, where there may be others; None too if it must stop."""
        while True:
            try:
                return await self._database.heart(old)
            except StoreError as error:
                if old is None or not error.passing:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)
            if self._stopping:
                return None

    async def _take_over(self, heart: Heart | None) -> tuple[int, list[Station], Judge]:
        now = self._clock.now()

        def transaction(tx: Tx) -> tuple[int, list[Station], Judge]:
            if heart is None:
                me = register(tx, socket.gethostname(), os.getpid(), now)
                reclaim(tx, me, now)
                condemn(tx, now)
            else:
                me = heart.id
                heart.bury(tx, now)
            ids = know_workers(tx, [(worker.identity, worker.name, worker.type) for worker, _ in self._workers])
            known = knowledge_of(tx, ids)
            stations = [
                Station(worker_id, worker, seats, self._aliases, known[worker_id], self._clock)
                for worker_id, (worker, seats) in zip(ids, self._workers, strict=True)
            ]
            read_before = {worker_id: each.read_last for worker_id, each in known.items()}
            return me, stations, Judge(known_factors(tx), read_before)

        return await self._database.write(transaction)

    async def _work(
        self,
        turns: Turns,
        stations: Sequence[Station],
        loops: Sequence[asyncio.Task[None]],
        presence: Presence | None,
        elsewhere: Callable[[], frozenset[int]],
        wanted: Callable[[int], bool] | None,
    ) -> None:
        waits = Waits(stations, self._database.read, self._no_worker_limit, self._tell)
        began = self._clock.ticks()
        looked = minded = -1.0
        while presence is None or presence.lost is None:
            self._keep_hours(turns)
            moved = await turns.step()
            for loop in loops:
                if loop.done():
                    loop.result()
            if self._stopping:
                if turns.idle or self._aborted:
                    return
            elif moved or self._clock.ticks() - looked >= 1.0:
                looked = self._clock.ticks()
                try:
                    left = await self._left(shared=presence is not None)
                    await self._fail_unfit(stations, elsewhere(), frozenset(left), idle=turns.idle)
                    if wanted is not None and not any(map(wanted, left)):
                        self.stop()
                        continue
                    waits.note()
                    due = looked - minded >= 1.0 and (turns.idle or not moved)
                    if due and not self._resting and not elsewhere():
                        minded = looked
                        await waits.mind(set(left.values()), looked - began, idle=turns.idle)
                except StoreError as error:
                    if not error.passing:
                        raise
            await turns.wait()

    async def _left(self, *, shared: bool) -> dict[int, str]:
        """The models of the jobs that are not finished, by their ids."""
        left = {job["job_id"]: job["model"] for job in await self._database.read.unfinished() if job["submitted"]}
        if shared and left:
            # Of two coordinators that end the last prompts of a job at once, neither sees that the other has.
            await self._database.write(lambda tx: finish_jobs(tx, left, self._clock.now()))
        return left

    def _keep_hours(self, turns: Turns) -> None:
        """Rest outside of the working hours, and say when that begins and ends."""
        if self._hours is None or self._stopping:
            return
        now = self._clock.now()
        resting = not self._hours.are_now(now)
        if resting != self._resting:
            begin = self._hours.next_begin(now)
            self._tell(
                Noticed(
                    f"outside of the working hours ({self._hours}): nothing more is asked before {begin:%H:%M}"
                    if resting
                    else f"the working hours have begun ({self._hours})"
                )
            )
        self._resting = resting
        turns.rest(resting)

    async def _fail_unfit(
        self, stations: Sequence[Station], elsewhere: frozenset[int], jobs: frozenset[int], *, idle: bool
    ) -> None:
        """Fail what no window holds, once every worker has told its own; those that are `elsewhere`, to the database.

        Again when windows or jobs change, and while nothing is in flight: what was retried may be all that is left.
        """
        if any(not station.well or station.refusing for station in stations):
            # Prompts that the others refuse meanwhile are left for it.
            self._judged = {}, frozenset()
            return
        windows: dict[str, int] = {}
        owners: dict[str, list[int]] = {}
        for station in stations:
            for model, window in station.windows().items():
                windows[model] = max(window, windows.get(model, 0))
                owners.setdefault(model, []).append(station.id)
        if not idle and (windows, jobs) == self._judged:
            return
        now = self._clock.now()

        def transaction(tx: Tx) -> None:
            others = windows_of(tx, elsewhere)
            for model, window in windows.items():
                names = {model}.union(*(group for group in self._aliases if model in group))
                having = [(worker, most) for worker, name, most in others if name in names or model == ANY_MODEL]
                widest = max([window, *(UNTOLD_WINDOW if most is None else most for _, most in having)])
                fail_unfit(tx, model, widest, [*owners[model], *(worker for worker, _ in having)], now)

        await self._database.write(transaction)
        self._judged = windows, jobs

    async def _leave(self, turns: Turns, me: int, *, lost: bool) -> None:
        turns.abort()
        end = math.inf
        while not turns.idle:
            # Who is to go on as another coordinator has time: what was answered is not asked again.
            if end == math.inf and (self._stopping or not lost):
                self._database.hurry(LEAVE_SECONDS)
                end = self._clock.ticks() + LEAVE_SECONDS
            if self._clock.ticks() >= min(end, self._leave_by):
                break
            await turns.step()
            if not turns.idle:
                await turns.wait()
        with suppress(StoreError):
            await self._database.write(lambda tx: retire(tx, me, self._clock.now()))
        self._database.hurry(None)
