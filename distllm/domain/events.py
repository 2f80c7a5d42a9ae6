"""What happens while a coordinator works, for logs and progress. Subscribers are called in order and at once."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt has its answer, committed."""

    job_id: int
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TriedInVain:
    """An attempt gave no answer; `final` if the prompt has failed for good."""

    job_id: int
    worker: str
    error: str
    final: bool


@dataclass(frozen=True, slots=True)
class WorkerChanged:
    """A worker became healthy or ceased to be; `error` says why."""

    worker: str
    healthy: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that a person should know: the database is full, nobody has the model."""

    text: str


Event = Answered | TriedInVain | WorkerChanged | Noticed
Listener = Callable[[Event], None]
