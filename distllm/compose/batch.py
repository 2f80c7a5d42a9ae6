"""What a program gets back from a batch: results, and how far it is."""

from collections import deque
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Self

from distllm.domain.states import FINAL, PromptState

_UNANSWERED = {
    PromptState.CANCELLED: "not answered: its batch was cancelled",
    PromptState.FAILED: "not answered: it failed",
}


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one prompt: a text, or the error that is the reason why there is none.

    `index` is the prompt's place in the batch. `seconds` is how long the answering request took; `attempts`
    how often the prompt was sent. Token counts are the server's own, None where it tells none;
    `finish_reason` is `stop`, or `length` for an answer cut at `max_tokens`.
    """

    index: int
    text: str | None
    error: str | None
    worker: str | None
    model: str | None
    attempts: int
    seconds: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    thinking: str | None

    @classmethod
    def of(cls, index: int, row: dict[str, Any]) -> Self:
        """Make one of a row that `Reader.requests` gives."""
        error = None
        if row["state"] != PromptState.DONE:
            error = row["error"] or _UNANSWERED.get(row["state"], "not answered: its batch was stopped or paused")
        return cls(
            index=index,
            text=row["answer"],
            error=error,
            worker=row["worker"],
            model=row["model"],
            attempts=row["attempts"],
            seconds=row["seconds"],
            prompt_tokens=row["prompt_tokens"],
            cached_tokens=row["cached_tokens"],
            completion_tokens=row["completion_tokens"],
            finish_reason=row["finish_reason"],
            thinking=row["thinking"],
        )

    @classmethod
    def missing(cls, index: int) -> Self:
        """The result of a prompt that was never stored."""
        names = (each.name for each in fields(cls) if each.name not in ("index", "error"))
        nothing: dict[str, Any] = dict.fromkeys(names) | {"attempts": 0}
        return cls(index=index, error=_UNANSWERED[PromptState.CANCELLED], **nothing)


def has_ended(row: dict[str, Any]) -> bool:
    """Whether nothing more will come of the prompt of a row."""
    return row["state"] in FINAL


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is: `done` of `total` prompts have ended, `failed` of them without an answer.

    `rate` is prompts a second, `eta` the seconds that are left at it; None while nothing can be said.
    """

    done: int
    failed: int
    total: int
    rate: float
    eta: float | None

    def __str__(self) -> str:
        line = f"{self.done:,} of {self.total:,} prompts"
        if self.failed:
            line += f" ({self.failed:,} failed)"
        if self.done == self.total or not self.rate:
            return line
        line += f", {self.rate:.1f}/s" if self.rate >= 0.1 else f", {60 * self.rate:.1f}/min"
        return line if self.eta is None else f"{line}, {timedelta(seconds=round(self.eta))} left"


class Pace:
    """How fast a batch goes on, over its newest steps."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._steps: deque[tuple[float, int]] = deque(maxlen=64)
        self._done = 0

    def progress(self, done: int, failed: int, ticks: float) -> BatchProgress | None:
        """Where the batch is; None if that is where it was. `ticks` never steps back, as `done` in what is told."""
        if self._steps and done <= self._done:
            return None
        self._done = done
        self._steps.append((ticks, done))
        began, first = self._steps[0]
        rate = (done - first) / (ticks - began) if ticks > began else 0.0
        return BatchProgress(done, failed, self._total, rate, (self._total - done) / rate if rate else None)
