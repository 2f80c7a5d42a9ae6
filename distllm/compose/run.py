"""Running jobs: as the coordinator, or behind the one that is live."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence, Set
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

from distllm.balancer.models import ANY_MODEL
from distllm.balancer.policies import make_policy
from distllm.compose.fleet import Fleet
from distllm.config import Config
from distllm.dispatcher.coordinator import Coordinator
from distllm.domain.clock import Clock
from distllm.domain.events import Event, Listener
from distllm.domain.hours import Hours
from distllm.domain.models import Offer
from distllm.intake import OnStep, Weights, Window, build
from distllm.metrics import Sinks, open_sinks
from distllm.store.control import cancel_some, unfinished_cancels
from distllm.store.database import Database
from distllm.store.fleet import known_digests, known_window
from distllm.store.locks import FileLock, coordinator_lock
from distllm.store.submissions import unfinished_builds
from distllm.workers.base import Worker

FOLLOW_EVERY_SECONDS = 0.5
NO_WORKER_SECONDS = 30.0


async def finish_begun(database: Database, fleet: Fleet, on_step: OnStep, clock: Clock) -> None:
    """Go on with jobs whose submit was cut short, and with those whose cancelling was."""
    for job_id in await database.write(unfinished_cancels):
        while await database.write(lambda tx, job_id=job_id: cancel_some(tx, job_id, clock.now())):  # type: ignore[misc]
            pass
    for job_id in await database.write(unfinished_builds):
        await build(database, job_id, on_step, clock, *inquiries(database, fleet))


def inquiries(database: Database, fleet: Fleet) -> tuple[Weights, Window]:
    """What intake asks the fleet for: the digests of its weights, and its largest window for a model."""
    return partial(known_weights, database, fleet), partial(largest_window, database, fleet)


async def known_weights(database: Database, fleet: Fleet) -> frozenset[str]:
    """The digests of what the workers of the fleet have; what one that is silent told last counts for it."""
    found = {worker.weights for worker, _ in fleet.workers if worker.weights}
    asked = [worker for worker, _ in fleet.workers if not worker.weights]
    silent = []
    for worker, health in zip(asked, await asyncio.gather(*map(fleet.look, asked)), strict=True):
        found.update(offer.digest for offer in health.offers if offer.digest)
        if not health.healthy:
            silent.append(worker.identity)
    return frozenset(found.union(await database.write(lambda tx: known_digests(tx, silent))))


async def largest_window(database: Database, fleet: Fleet, model: str) -> int | None:
    """The largest context window that the workers of the fleet have for a model, told or configured.

    What one that is silent told last counts for it. None where nobody can tell one.
    """
    names = None
    if model != ANY_MODEL:
        names = {model}.union(*(group for group in fleet.aliases if model in group))
    found = await asyncio.gather(*(_window(database, fleet, worker, names) for worker, _ in fleet.workers))
    return max((window for window in found if window is not None), default=None)


async def _window(database: Database, fleet: Fleet, worker: Worker, names: Set[str] | None) -> int | None:
    told = await database.write(lambda tx: known_window(tx, worker.identity, names))
    last = worker.spec.context_length or told
    if worker.weights and last is not None:
        # One of our own, which need not be started for that.
        return last
    health = await fleet.look(worker)
    return _offered(health.offers, names) if health.healthy else last


def _offered(offers: Sequence[Offer], names: Set[str] | None) -> int | None:
    """The window of the model with one of `names`; of what is loaded, or comes first, where any will do."""
    if names is None:
        fits = [offer for offer in offers if offer.loaded][:1] or offers[:1]
    else:
        fits = [offer for offer in offers if names & {offer.model, *offer.also}]
    return max((offer.context_length for offer in fits if offer.context_length is not None), default=None)


class Run:
    """Work on a database until the wanted jobs have ended, as its coordinator or behind the one that is live.

    `stop` once finishes what is in flight, twice stops at once; nothing is lost either way. `coordinating` while it
    is the coordinator.
    """

    def __init__(
        self,
        database: Database,
        config: Config,
        fleet: Fleet,
        listener: Listener,
        clock: Clock,
        *,
        no_worker_limit: float = NO_WORKER_SECONDS,
        hours: Hours | None = None,
    ) -> None:
        self._database = database
        # Where there may be several coordinators, none waits for another.
        place = database.place
        self._lock: FileLock | None = coordinator_lock(place) if isinstance(place, Path) else None
        self._clock = clock
        self._stops = 0
        self._stopped = asyncio.Event()
        self._tell = listener
        self._metrics = config.metrics
        self._sinks = Sinks({})
        self.coordinating = False
        self._coordinator = Coordinator(
            database,
            fleet.workers,
            make_policy(config.policy),
            aliases=config.aliases(),
            health_check_interval=config.health_check_interval,
            request_timeout=config.request_timeout,
            max_retries=config.max_retries,
            seats_in_all=config.max_concurrent_batch,
            no_worker_limit=no_worker_limit,
            listener=self._hear,
            clock=clock,
            rng=Random(time.time_ns()),
            keep_samples=config.enable_metrics,
            hours=hours,
        )

    @property
    def interrupted(self) -> bool:
        """Whether it was told to stop."""
        return self._stops > 0

    @property
    def hurried(self) -> bool:
        """Whether it was told to stop at once."""
        return self._stops > 1

    def stop(self) -> None:
        """Stop in order; called again, at once."""
        self._stops += 1
        self._stopped.set()
        if self._stops == 1:
            self._coordinator.stop()
        else:
            self._coordinator.abort()

    async def until_done(self, wanted: Callable[[int], bool], on_follow: Callable[[int | None], None]) -> None:
        """Return when no `wanted` job is unfinished; `on_follow` is told the process of a live coordinator."""
        await self._work(wanted, on_follow)

    async def until_stopped(self, on_follow: Callable[[int | None], None]) -> None:
        """Work whatever is submitted, also later, until told to stop; `on_follow` as in `until_done`."""
        await self._work(None, on_follow)

    async def _work(self, wanted: Callable[[int], bool] | None, on_follow: Callable[[int | None], None]) -> None:
        told = False
        while self._lock is not None and not self._lock.try_acquire():
            if not told:
                on_follow(self._lock.holder())
                told = True
            left = [] if wanted is None else await self._database.read.unfinished()
            if self._stops or (wanted is not None and not any(wanted(job["job_id"]) for job in left)):
                return
            await self._pause()
        try:
            # Only the coordinator has sinks, so that no two of one kind are open at once.
            with closing(open_sinks(self._metrics)) as self._sinks:
                self.coordinating = True
                await self._coordinator.run(wanted)
        finally:
            self.coordinating = False
            if self._lock is not None:
                self._lock.release()

    def _hear(self, event: Event) -> None:
        self._tell(event)
        self._sinks.observe(event)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(FOLLOW_EVERY_SECONDS):
                await self._stopped.wait()
        except TimeoutError:
            pass

    def stop_on_signals(self) -> None:
        """Let Ctrl-C and SIGTERM stop this run instead of the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
