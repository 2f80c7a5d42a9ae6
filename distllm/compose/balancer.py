"""`LoadBalancer`: many prompts of a program over all workers, kept in a database while they are answered."""

import asyncio
import inspect
import logging
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import takewhile
from types import TracebackType
from typing import Any, Self

from distllm.balancer.models import ANY_MODEL
from distllm.batches import BatchRequest, Prompts, Spool, store_batch
from distllm.compose.batch import BatchProgress, BatchResult, Pace, has_ended
from distllm.compose.fleet import Fleet, model_for, open_fleet
from distllm.compose.run import Run, known_weights
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.events import Event, Noticed, WorkerChanged, to_all
from distllm.domain.places import place_of
from distllm.insights import progress
from distllm.metrics import Figures, Metrics
from distllm.presets.preset import MAX_TOKENS, TEMPERATURE
from distllm.scratch import scratch_folder
from distllm.store.database import Database, open_database
from distllm.workers.base import Worker

MAX_CONCURRENT = 50
LOOK_EVERY_SECONDS = 0.25

OnProgress = Callable[[BatchProgress], Awaitable[object] | object]

logger = logging.getLogger("distllm")


class LoadBalancer:
    """Asks prompts of all workers of a configuration, and gives their answers in the order of the prompts.

        async with LoadBalancer(Config.load("workers.json"), db="answers.db") as balancer:
            results = await balancer.process_batch(prompts, on_progress=print)

    With `db`, everything is kept: the same call made again, after a kill too, asks only what has no answer yet.
    Without it a temporary file is used. Without `config` the configuration is looked for as the command does;
    with no worker in it, the embedded one is started.

    Raises DistllmError, where it is entered, if there is no worker at all or the database cannot be used.
    """

    def __init__(self, config: Config | None = None, *, db: str | os.PathLike[str] | None = None) -> None:
        self._config = Config.load() if config is None else config
        self._db = None if db is None else place_of(os.fspath(db))
        self._clock = Clock()
        self._metrics = Metrics()
        self._exit = AsyncExitStack()
        self._opened: tuple[Fleet, Database] | None = None
        self._runs: dict[asyncio.Task[None], Run] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            fleet = await stack.enter_async_context(open_fleet(self._config))
            place = self._db
            if place is None:
                place = stack.enter_context(scratch_folder()) / "batch.db"
            database = await stack.enter_async_context(open_database(place))
            stack.push_async_callback(self._stop)
            self._exit = stack.pop_all()
        if fleet.notice is not None:
            logger.warning("%s", fleet.notice)
        self._opened = fleet, database
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None
        await self._exit.aclose()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers, whose `weight` may be set."""
        return tuple(worker for worker, _ in self._open()[0].workers)

    def figures(self) -> dict[str, Figures]:
        """What each worker did in the last five minutes, by its name, as far as this process had it work."""
        return self._metrics.figures(self._clock.now())

    async def process_batch(
        self,
        prompts: Prompts,
        *,
        max_concurrent: int | None = None,
        on_progress: OnProgress | None = None,
        model: str | None = None,
        max_tokens: int = MAX_TOKENS,
        temperature: float = TEMPERATURE,
        name: str | None = None,
        priority: int = 0,
        fresh: bool = False,
    ) -> list[BatchResult]:
        """Ask all prompts and return their results, in the order of the prompts.

        A prompt is a text, or a list of messages such as `{"role": "user", "content": "…"}`; `prompts` may be
        a generator, also an asynchronous one. `max_concurrent` bounds the requests in flight (50, or what the
        configuration says). `model` is any by default: each worker's own. `on_progress` is called with a
        `BatchProgress` whenever prompts have ended, and awaited if it can be. `fresh` asks anew what has an
        answer already.

        A prompt that fails is a result with its error. Raises ValueError or TypeError for what is no prompt,
        NoWorkerError if no worker could answer in the first 30 s, and what `on_progress` raises. Cancelled, it
        stops the requests in flight; what was answered is kept where there is a `db`.
        """
        results = self.stream(
            prompts,
            max_concurrent=max_concurrent,
            on_progress=on_progress,
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            name=name,
            priority=priority,
            fresh=fresh,
        )
        async with aclosing(results):
            return [result async for result in results]

    async def stream(
        self,
        prompts: Prompts,
        *,
        max_concurrent: int | None = None,
        on_progress: OnProgress | None = None,
        model: str | None = None,
        max_tokens: int = MAX_TOKENS,
        temperature: float = TEMPERATURE,
        name: str | None = None,
        priority: int = 0,
        fresh: bool = False,
    ) -> AsyncGenerator[BatchResult, None]:
        """As `process_batch`, but give each result, in the order of the prompts, once all before it are there.

        Results are not kept in memory, so that a batch may be of any size. A loop that is left early stops the
        batch.
        """
        limit = self._config.max_concurrent_batch or MAX_CONCURRENT if max_concurrent is None else max_concurrent
        for what, value, least in (
            ("max_concurrent", limit, 1),
            ("max_tokens", max_tokens, 1),
            ("temperature", temperature, 0),
        ):
            if not least <= value < math.inf:
                raise ValueError(f"{what} must be at least {least}, not {value}")
        fleet, database = self._open()
        with Spool() as spool:
            await spool.take(prompts)
            total = spool.count
            if not total:
                return
            chosen = ANY_MODEL if model is None and not fleet.embedded else await model_for(fleet, model, self._config)
            request = BatchRequest(chosen, max_tokens, temperature, name, priority, fresh)
            # Who has what weights is asked only where there is an answer to reuse.
            reusing = not fresh and await database.read.any_answer()
            digests = await known_weights(database, fleet) if reusing else frozenset[str]()
            job_id = await store_batch(database, spool, request, digests, self._clock)
        pace = Pace(total)
        after, index = 0, 0
        async with self._working(database, fleet, job_id, limit) as work:
            over = False
            if on_progress is not None:
                await _report(database, job_id, pace, on_progress, self._clock)
            while not over:
                await asyncio.wait({work}, timeout=LOOK_EVERY_SECONDS)
                self._open()
                # Looked at first: what is not there then will not come.
                if over := work.done():
                    work.result()
                if on_progress is not None:
                    await _report(database, job_id, pace, on_progress, self._clock)
                while page := await _page(database, job_id, after, over):
                    for row in page:
                        yield BatchResult.of(index, row)
                        index += 1
                    after = page[-1]["prompt_id"]
        # Cancelled elsewhere while it was still being written.
        for missing in range(index, total):
            yield BatchResult.missing(missing)

    def _open(self) -> tuple[Fleet, Database]:
        if self._opened is None:
            raise RuntimeError(
                "a LoadBalancer works only inside of its block: `async with LoadBalancer(…) as balancer:`"
            )
        return self._opened

    @asynccontextmanager
    async def _working(
        self, database: Database, fleet: Fleet, job_id: int, limit: int
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Have a job worked, by this process or behind the coordinator that is live; left early, it is stopped."""
        config = self._config.model_copy(update={"max_concurrent_batch": limit})
        run = Run(database, config, fleet, to_all((self._metrics.observe, _log)), self._clock)
        work = asyncio.create_task(run.until_done(lambda each: each == job_id, _log_following))
        self._runs[work] = run
        try:
            yield work
        finally:
            await self._end(work)

    async def _stop(self) -> None:
        for work in list(self._runs):
            await self._end(work)

    async def _end(self, work: asyncio.Task[None]) -> None:
        """Stop a run at once, if it has not ended, and wait until it has given back its leases."""
        run = self._runs.pop(work, None)
        if run is not None and not work.done():
            run.stop()
            run.stop()
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:
                work.cancel()
                await asyncio.wait({work})
                raise


async def _page(database: Database, job_id: int, after: int, over: bool) -> list[dict[str, Any]]:
    """The prompts after `after` of which nothing more will come, up to the first of which something may."""
    rows = await database.read.requests(job_id, after)
    return rows if over else list(takewhile(has_ended, rows))


async def _report(database: Database, job_id: int, pace: Pace, on_progress: OnProgress, clock: Clock) -> None:
    job = await progress(database.read, job_id, clock.now())
    if job is None:
        return
    without_answer = job.failed + job.cancelled
    if (step := pace.progress(job.done + without_answer, without_answer, clock.ticks())) is not None:
        said = on_progress(step)
        if inspect.isawaitable(said):
            await said


def _log(event: Event) -> None:
    match event:
        case WorkerChanged(worker=worker, healthy=False, error=error):
            logger.warning("worker %s does not answer: %s", worker, error)
        case Noticed(text):
            logger.warning("%s", text)
        case _:
            pass


def _log_following(pid: int | None) -> None:
    logger.info("process %s works this database already; following it", pid)
