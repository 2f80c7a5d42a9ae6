"""Rolling figures of workers, made from events; and sinks, which carry events to wherever a package wants them.

Limits: a window moves by a sixtieth of its length at a time, so a figure covers between 59 and 60 of them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from distllm.domain.errors import DistllmError
from distllm.domain.events import Answered, Event, TriedInVain
from distllm.domain.models import ErrorClass
from distllm.plugins import load

GROUP = "distllm.metrics"
WINDOW_SECONDS = 300.0
SLICES = 60

_ITS_FAULT = frozenset({ErrorClass.BROKEN, ErrorClass.REFUSED})
"""What a worker is to blame for, as the table `workers` counts it."""

logger = logging.getLogger("distllm.metrics")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one worker did in a window. Times are seconds, rates are for each second; None without an answer.

    `success_rate` is from 0 to 1, and `first_token_seconds` the mean time to the first token.
    """

    requests: int
    succeeded: int
    failed: int
    success_rate: float | None
    min_seconds: float | None
    avg_seconds: float | None
    max_seconds: float | None
    first_token_seconds: float | None
    requests_per_second: float
    tokens_per_second: float


@dataclass(slots=True)
class Tally:
    """Sums over requests that have ended; answers alone count for times and tokens."""

    requests: int = 0
    succeeded: int = 0
    failed: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    min_seconds: float | None = None
    max_seconds: float | None = None
    first_tokens: int = 0
    first_token_seconds: float = 0.0

    def count(self, event: Answered | TriedInVain) -> None:
        """Take in how one request ended."""
        self.requests += 1
        if isinstance(event, TriedInVain):
            self.failed += event.error_class in _ITS_FAULT
            return
        self.succeeded += 1
        self.completion_tokens += event.usage.completion_tokens or 0
        self.seconds += event.seconds
        self.min_seconds = event.seconds if self.min_seconds is None else min(self.min_seconds, event.seconds)
        self.max_seconds = event.seconds if self.max_seconds is None else max(self.max_seconds, event.seconds)
        if event.first_token_seconds is not None:
            self.first_tokens += 1
            self.first_token_seconds += event.first_token_seconds

    def add(self, other: "Tally") -> None:
        """Take in all that `other` has counted."""
        self.requests += other.requests
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.completion_tokens += other.completion_tokens
        self.seconds += other.seconds
        self.first_tokens += other.first_tokens
        self.first_token_seconds += other.first_token_seconds
        least = [each for each in (self.min_seconds, other.min_seconds) if each is not None]
        most = [each for each in (self.max_seconds, other.max_seconds) if each is not None]
        self.min_seconds, self.max_seconds = min(least, default=None), max(most, default=None)

    def figures(self, seconds: float) -> Figures:
        """The figures of what was counted within `seconds`."""
        judged = self.succeeded + self.failed
        return Figures(
            requests=self.requests,
            succeeded=self.succeeded,
            failed=self.failed,
            success_rate=self.succeeded / judged if judged else None,
            min_seconds=self.min_seconds,
            avg_seconds=self.seconds / self.succeeded if self.succeeded else None,
            max_seconds=self.max_seconds,
            first_token_seconds=self.first_token_seconds / self.first_tokens if self.first_tokens else None,
            requests_per_second=self.requests / seconds,
            tokens_per_second=self.completion_tokens / seconds,
        )


class Rolling:
    """The newest `seconds` of one worker, as a ring of tallies: as large after a million requests as after one.

    What comes late is counted in its own slice, unless that has left the window.
    """

    def __init__(self, began: float, seconds: float = WINDOW_SECONDS) -> None:
        self._began = began
        self._width = seconds / SLICES
        self._slices: dict[int, Tally] = {}
        self._newest = self._place(began)

    def count(self, event: Answered | TriedInVain) -> None:
        """Take in how one request ended."""
        place = self._place(event.at)
        self._forget(place)
        if place > self._newest - SLICES:
            self._slices.setdefault(place, Tally()).count(event)

    def figures(self, now: float) -> Figures:
        """The figures of the window that ends at `now`; of a shorter time at the beginning."""
        self._forget(self._place(now))
        total = Tally()
        for place, tally in self._slices.items():
            if place <= self._place(now):
                total.add(tally)
        start = max(self._began, (self._newest - SLICES + 1) * self._width)
        return total.figures(max(self._width, now - start))

    def _place(self, at: float) -> int:
        return int(at // self._width)

    def _forget(self, place: int) -> None:
        if place <= self._newest:
            return
        self._newest = place
        for old in [each for each in self._slices if each <= place - SLICES]:
            del self._slices[old]


class Metrics:
    """Rolling figures of every worker that events have named."""

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self._seconds = seconds
        self._workers: dict[str, Rolling] = {}

    def observe(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case Answered(worker=worker, at=at, seconds=seconds) | TriedInVain(worker=worker, at=at, seconds=seconds):
                if worker not in self._workers:
                    self._workers[worker] = Rolling(at - seconds, self._seconds)
                self._workers[worker].count(event)
            case _:
                pass

    def figures(self, now: float) -> dict[str, Figures]:
        """The figures of each worker over the window that ends at `now`, in seconds since 1970."""
        return {worker: rolling.figures(now) for worker, rolling in self._workers.items()}


class Sink(Protocol):
    """What a package offers through the entry-point group `distllm.metrics`; made by calling it without arguments."""

    def observe(self, event: Event) -> None:
        """Take in an event. Called on the event loop, so it must return at once."""
        ...

    def close(self) -> None:
        """The run has ended: send what is left."""
        ...


class Sinks:
    """Other people's sinks. One that raises is told of in the log, once, and harms nothing."""

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)
        self._blamed: set[str] = set()

    def observe(self, event: Event) -> None:
        """Hand an event to every sink."""
        for name, sink in self._sinks.items():
            try:
                sink.observe(event)
            except Exception as error:
                self._blame(name, error)

    def close(self) -> None:
        """Close every sink."""
        for name, sink in self._sinks.items():
            try:
                sink.close()
            except Exception as error:
                self._blame(name, error)

    def _blame(self, name: str, error: Exception) -> None:
        if name in self._blamed:
            return
        self._blamed.add(name)
        logger.warning("the metrics sink %r failed (%s: %s); said once", name, type(error).__name__, error)
        logger.debug("where the metrics sink %r failed", name, exc_info=error)


def open_sinks(names: Sequence[str]) -> Sinks:
    """Make the sinks that the configuration names; one that cannot be made is logged and left out."""
    sinks: dict[str, Sink] = {}
    for name in names:
        try:
            sinks[name] = load(GROUP, name)()
        except DistllmError as error:
            logger.warning("the metrics sink is left out: %s", error)
        except Exception as error:
            logger.warning("the metrics sink %r is left out (%s: %s)", name, type(error).__name__, error)
    return Sinks(sinks)
