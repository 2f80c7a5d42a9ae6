"""How long what is left will take: by the speeds that were learnt, set right by the pace that is seen."""

from collections.abc import Sequence
from dataclasses import dataclass

_TRUST = 8
"""As many answers as weigh as much, by their pace, as what the speeds promise."""

_FEWEST = 3
"""Fewer answers tell no pace where no speed is known."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second that a worker reads and writes with all its seats; neither is 0."""

    read: float
    write: float


_USUAL = Speed(20.0, 1.0)
"""Where no speed is known, a token takes some twenty times as long to write as to read; only the ratio counts."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens to read and to write."""

    read: float = 0.0
    written: float = 0.0

    def __mul__(self, factor: float) -> "Work":
        """So much of it."""
        return Work(self.read * factor, self.written * factor)

    def __add__(self, more: "Work") -> "Work":
        """Both."""
        return Work(self.read + more.read, self.written + more.written)


@dataclass(frozen=True, slots=True)
class Seen:
    """What `answers` took of late: work that was done in so many seconds."""

    answers: int
    work: Work
    seconds: float


def forecast(left: Work, mean: Work, speeds: Sequence[Speed], seen: Seen) -> float | None:
    """The seconds that the work `left` will take; None while nothing can be said of it.

    `speeds` are those of the workers together at it; `mean` is the work of one prompt.
    With a few answers it is what the speeds promise, with many what the pace tells: answers also wait, fail, and
    slow each other down.
    """
    promised = seconds_for(left, speeds)
    if promised is None:
        if seen.answers < _FEWEST or seen.seconds <= 0:
            return None
        speeds = [_USUAL]
        promised, trust = seconds_for(left, speeds), 0
    else:
        trust = _TRUST
    prior, done = seconds_for(mean * trust, speeds), seconds_for(seen.work, speeds)
    assert promised is not None
    assert prior is not None
    assert done is not None
    if prior + done <= 0:
        return None
    return promised * (prior + max(seen.seconds, 0.0)) / (prior + done)


def seconds_for(work: Work, speeds: Sequence[Speed]) -> float | None:
    """How long workers are at it together, if it is shared out so that all end at once; None if there is none."""
    alone = [work.read / speed.read + work.written / speed.write for speed in speeds]
    if not alone:
        return None
    return 1 / sum(1 / seconds for seconds in alone) if min(alone) > 0 else 0.0
