"""Looking at the configured workers without working with them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from distllm.compose.fleet import specs_of
from distllm.config import Config
from distllm.domain.errors import DistllmError
from distllm.domain.models import Call, Health, Limits, WorkerSpec
from distllm.domain.tokens import estimate_tokens
from distllm.workers import make_worker
from distllm.workers.base import Worker
from distllm.workers.session import open_session

GENERATE = Limits(first_token=120.0, between_chunks=60.0, total=180.0)
"""How long a model may take for its first token, which it may have to be loaded for."""

_QUESTION = "Say yes."


@dataclass(frozen=True, slots=True)
class Checked:
    """What a worker said of itself; `seconds` is how long that took, `wrong` why it cannot be used, else None.

    `generated` tells whether it gave the one token it was asked for; None where it was not asked.
    """

    spec: WorkerSpec
    identity: str
    health: Health
    seconds: float
    generated: bool | None
    wrong: str | None


async def identities(config: Config) -> list[tuple[WorkerSpec, str]]:
    """The configured workers and who they are, without contacting any."""
    async with open_session() as session:
        specs = [worker.keyless() for worker in config.workers]
        return [(spec, make_worker(spec, session).identity) for spec in specs]


async def check_workers(config: Config, names: Collection[str], *, generate: bool) -> AsyncIterator[Checked]:
    """Probe the workers with these names, or all, at the same time; yield each in the order of the configuration.

    Raises NoWorkerError if there is none, UsageError where a key is missing.
    """
    async with open_session() as session:
        specs = [spec for spec in await specs_of(config, session) if not names or spec.name in names]
        workers = [make_worker(spec, session) for spec in specs]
        looks = [asyncio.create_task(_check(worker, generate=generate)) for worker in workers]
        try:
            for look in looks:
                yield await look
        finally:
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
            await asyncio.gather(*(worker.close() for worker in workers))


async def _check(worker: Worker, *, generate: bool) -> Checked:
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        await worker.start()
        health = await worker.probe()
    except DistllmError as error:
        health = Health(healthy=False, error=str(error))
    seconds = clock() - began
    wrong = health.error
    if not wrong and not health.offers:
        wrong = f"{worker.identity}: has no model: load one in the server"
    generated = None
    if generate and not wrong:
        wrong = await _ask(worker, health)
        generated = wrong is None
    return Checked(worker.spec, worker.identity, health, seconds, generated, wrong)


async def _ask(worker: Worker, health: Health) -> str | None:
    """Ask for one token, of a model that is loaded where there is one; return what went wrong."""
    loaded: Sequence[str] = [offer.model for offer in health.offers if offer.loaded]
    model = worker.spec.model or (loaded or [offer.model for offer in health.offers])[0]
    outcome = await worker.ask(Call(model, "", _QUESTION, 1, 0.0, estimate_tokens(_QUESTION)), GENERATE)
    # One token of a model that thinks is a thought: it answers all the same.
    if outcome.error_class is None or outcome.thinking or outcome.usage.completion_tokens:
        return None
    return f"{model} does not answer: {outcome.error}"
