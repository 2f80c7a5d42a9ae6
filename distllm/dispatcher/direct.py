"""One question that somebody waits for: asked at once, beside all jobs, and kept nowhere."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

from distllm.balancer.models import ANY_MODEL
from distllm.balancer.weights import shuffled, weigh
from distllm.dispatcher.asked import cut, fewest_of
from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.domain.models import Call, ErrorClass, Health, Offer, Outcome
from distllm.domain.policy import limits
from distllm.domain.tokens import texts_of
from distllm.workers.base import Worker

MOST_WAITING = 64
"""How many such questions may be asked at once: beyond, who asks is told to come later."""

TRIES = 2
"""A worker that fails before its first token is followed by another."""


class TooManyError(DistllmError):
    """Too many wait for an answer already."""


class TooLongError(DistllmError):
    """No window holds the question with its answer."""


@dataclass
class _Record:
    """What is known of a worker by the questions that it was asked here."""

    in_flight: int = 0
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.seconds / self.answered if self.answered else None

    @property
    def success_rate(self) -> float:
        ended = self.answered + self.failed
        return self.answered / ended if ended else 1.0


@dataclass(frozen=True, slots=True)
class _Choice:
    """A worker that may be asked, and what it has."""

    worker: Worker
    offer: Offer
    slots: int


class Direct:
    """Asks `workers`. `look` tells of one, `names_of` all that a model is called."""

    def __init__(
        self,
        workers: Sequence[Worker],
        look: Callable[[Worker], Awaitable[Health]],
        names_of: Callable[[str], Sequence[str]],
        *,
        request_timeout: float,
        rng: Random,
    ) -> None:
        self._workers = workers
        self._look = look
        self._names_of = names_of
        self._request_timeout = request_timeout
        self._rng = rng
        self._records = {worker: _Record() for worker in workers}
        self._waiting = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who wait. Raises TooManyError where there is none."""
        if self._waiting >= MOST_WAITING:
            raise TooManyError(f"{MOST_WAITING} requests wait already: try again in a while, or make a batch")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def choose(self, call: Call) -> list[_Choice]:
        """Who may be asked, in the order of a choice by weight.

        Raises NoWorkerError if nobody has the model now, TooLongError if no window holds the call.
        """
        healths = await asyncio.gather(*map(self._look, self._workers))
        names = set(self._names_of(call.model))
        having = [
            _Choice(worker, offer, health.slots or worker.spec.slots or 1)
            for worker, health in zip(self._workers, healths, strict=True)
            if health.healthy
            for offer in _offers(health, names)[:1]
        ]
        if not having:
            raise NoWorkerError(f"no worker that has the model {call.model} answers now: try again in a while")
        needs = call.tokens + call.max_tokens
        fitting = [each for each in having if each.offer.context_length is None or needs <= each.offer.context_length]
        if not fitting:
            window = max(each.offer.context_length or 0 for each in having)
            raise TooLongError(
                f"the largest context window of {call.model} is {window:,} tokens, and this takes up to {needs:,} "
                f"({call.tokens:,} to read and {call.max_tokens:,} to write): send less, or set a lower max_tokens"
            )
        return shuffled(fitting, self._weights(fitting), self._rng)

    def _weights(self, choices: Sequence[_Choice]) -> list[float]:
        records = [self._records[each.worker] for each in choices]
        best = min((record.mean for record in records if record.mean is not None), default=None)
        return [
            each.worker.weight
            * weigh(
                availability=max(0.0, 1 - record.in_flight / each.slots),
                success_rate=record.success_rate,
                seconds=record.mean,
                best_seconds=best,
            )
            for each, record in zip(choices, records, strict=True)
        ]

    async def ask(self, call: Call, choices: Sequence[_Choice]) -> Outcome:
        """Ask the first of `choices`, and once more the next one if that fails before its first token.

        Whoever asks cancels this to end the request. Never raises for what a server does.
        """
        heard = False

        def hear(text: str, thinking: str) -> None:
            nonlocal heard
            heard = True
            if call.hear is not None:
                call.hear(text, thinking)

        outcome = await self._ask(replace(call, hear=hear), choices[0])
        for choice in choices[1:TRIES]:
            if outcome.error_class is None or heard:
                break
            outcome = await self._ask(replace(call, hear=hear), choice)
        return outcome

    async def _ask(self, call: Call, choice: _Choice) -> Outcome:
        record = self._records[choice.worker]
        bounds = limits(sent_tokens=call.tokens, max_tokens=call.max_tokens, request_timeout=self._request_timeout)
        record.in_flight += 1
        try:
            outcome = _judged(await choice.worker.ask(replace(call, model=choice.offer.model), bounds), call, choice)
        finally:
            record.in_flight -= 1
        if outcome.error_class is None:
            record.answered += 1
            record.seconds += outcome.seconds
        elif outcome.error_class in (ErrorClass.BROKEN, ErrorClass.LOST):
            record.failed += 1
        return outcome


def _offers(health: Health, names: Set[str]) -> Sequence[Offer]:
    """What a worker has of a model, the best first: of any, what is loaded."""
    if ANY_MODEL in names:
        return sorted(health.offers, key=lambda offer: not offer.loaded)
    return [offer for offer in health.offers if names & {offer.model, *offer.also}]


def _judged(outcome: Outcome, call: Call, choice: _Choice) -> Outcome:
    """The outcome; none that was given to less than was sent."""
    read, fewest = outcome.usage.prompt_tokens, fewest_of(texts_of(call))
    if outcome.error_class is not None or read is None or read >= fewest:
        return outcome
    return cut(choice.worker, outcome, read, fewest)
