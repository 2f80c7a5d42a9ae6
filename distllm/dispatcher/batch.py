"""What a turn has to write, and what is told of it once it is written."""

from dataclasses import dataclass, field
from typing import Self

from distllm.domain.events import Answered, Event, TriedInVain
from distllm.domain.models import ErrorClass, Outcome, Usage
from distllm.domain.policy import Failed
from distllm.store.attempts import Sent, Settlement
from distllm.store.leases import Lease


@dataclass(slots=True)
class Batch:
    """What the next transaction has to write."""

    sent: list[Sent] = field(default_factory=list)
    ended: list[Settlement] = field(default_factory=list)
    returned: list[Lease] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.sent or self.ended or self.returned)

    def take(self) -> Self:
        """What there is, which is here no more."""
        taken = type(self)(self.sent, self.ended, self.returned)
        self.sent, self.ended, self.returned = [], [], []
        return taken

    def put_back(self, taken: Self) -> None:
        """Put what could not be written before what has come since."""
        self.sent[:0] = taken.sent
        self.ended[:0] = taken.ended
        self.returned[:0] = taken.returned

    def leases(self) -> set[tuple[int, int]]:
        """The leases that it speaks of."""
        return {lease.key for lease in [*(each.sent.lease for each in self.ended), *self.returned]}


def announced(each: Settlement, worker: str, *, moved: bool) -> Event | None:
    """What to tell of the end of an attempt, which `moved` its prompt or not.

    Nothing of one that was only given back, nor of an answer that came after another.
    """
    outcome, job_id = each.outcome, each.sent.lease.job_id
    if outcome.error_class is None:
        if not moved:
            return None
        return Answered(
            job_id,
            worker,
            each.finished_at,
            outcome.seconds,
            outcome.first_token_seconds,
            outcome.model,
            outcome.usage,
            outcome.finish_reason,
        )
    if outcome.error_class is ErrorClass.RELEASED:
        return None
    final = moved and isinstance(each.verdict, Failed)
    error = outcome.error or ""
    return TriedInVain(job_id, worker, each.finished_at, outcome.seconds, outcome.error_class, error, final)


def released(seconds: float) -> Outcome:
    """The outcome of a request that was stopped after `seconds`, before it was answered."""
    return Outcome(
        error_class=ErrorClass.RELEASED,
        error="stopped before it was answered",
        answer="",
        thinking=None,
        finish_reason=None,
        model=None,
        usage=Usage(),
        seconds=seconds,
        first_token_seconds=None,
    )
