"""What happens while a coordinator works, for logs, progress and metrics.

Subscribers are called in order and at once, on the event loop: they must return soon. `at` is seconds since
1970.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distllm.domain.models import ErrorClass, Usage


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt has its answer, committed.

    `seconds` is the whole request, `first_token_seconds` the time until its first token; `model` is what the
    worker calls the one that answered.
    """

    job_id: int
    worker: str
    at: float
    seconds: float
    first_token_seconds: float | None
    model: str | None
    usage: Usage
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class TriedInVain:
    """An attempt gave no answer, for the cause in `error_class`; `final` if the prompt has failed for good."""

    job_id: int
    worker: str
    at: float
    seconds: float
    error_class: ErrorClass
    error: str
    final: bool


@dataclass(frozen=True, slots=True)
class Leased:
    """Prompts were leased, in a transaction that took `seconds` from when it was asked for to its COMMIT."""

    prompts: int
    seconds: float


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


Event = Answered | TriedInVain | Leased | WorkerChanged | Noticed
Listener = Callable[[Event], None]


def to_all(listeners: Sequence[Listener]) -> Listener:
    """One listener that tells all of `listeners`."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
