"""The states of a prompt and of a job, and every legal move between them.

The CHECK constraints of the database, the guarded updates of the store and the picture in the README
agree with this table; a test compares them.
"""

from enum import StrEnum
from typing import NamedTuple


class PromptState(StrEnum):
    """Where one prompt stands. Waiting for a retry is `pending` with a later `available_at`."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    """Where a job stands, told by its time stamps and counters."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(NamedTuple):
    """One legal move of a prompt, and who makes it."""

    source: PromptState
    target: PromptState
    by: str


FINAL = frozenset({PromptState.DONE, PromptState.FAILED, PromptState.CANCELLED})

MOVES = (
    Move(PromptState.PENDING, PromptState.LEASED, "claim: a coordinator takes it for a seat"),
    Move(PromptState.LEASED, PromptState.DONE, "settle: the answer, under the newest lease"),
    Move(PromptState.LEASED, PromptState.FAILED, "settle: no retry is left, or none could help"),
    Move(PromptState.LEASED, PromptState.PENDING, "settle, release or reclaim: again, at `available_at`"),
    Move(PromptState.LEASED, PromptState.CANCELLED, "cancel"),
    Move(
        PromptState.PENDING,
        PromptState.DONE,
        "settle: a late answer whose lease is still the newest; submit: an answer that exists",
    ),
    Move(
        PromptState.PENDING,
        PromptState.FAILED,
        "no worker can hold it, a part of it failed, or coordinators in a row have died of it",
    ),
    Move(PromptState.PENDING, PromptState.CANCELLED, "cancel"),
    Move(PromptState.FAILED, PromptState.PENDING, "retry"),
    Move(PromptState.DONE, PromptState.PENDING, "retry --truncated: the old answer stays with its attempt"),
)
