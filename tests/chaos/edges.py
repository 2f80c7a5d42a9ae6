"""Edges: the moments around a commit at which a victim can die, told by what its transaction does."""

import re
from dataclasses import dataclass
from itertools import product

BEGUN, BEFORE, AFTER, TOLD = "begun", "before-commit", "after-commit", "told-failed"
"""In the midst of the transaction; just before its COMMIT; just after; and no death, but an error after COMMIT."""

CLAIM, SETTLE, RECLAIM, BUILD = "claim", "settle", "reclaim", "build"
REQUIRED = tuple(product((BEGUN, BEFORE, AFTER), (CLAIM, SETTLE, RECLAIM, BUILD)))
OTHERS = tuple(product((BEGUN, BEFORE, AFTER), ("document", "health", "job")))

# The first that fits tells what a statement does; most tell nothing.
_SORTS = (
    (CLAIM, r"UPDATE prompts SET .*\blease=\(prompts\.lease \+"),
    (
        RECLAIM,
        r"UPDATE prompts SET .*\blosses=.* WHERE .*\bholder IN|UPDATE coordinators SET .* WHERE .*\bended_at IS NULL",
    ),
    (SETTLE, r"UPDATE prompts SET .* WHERE .*\bprompts\.lease ="),
    (BUILD, r"INSERT INTO prompts "),
    ("document", r"INSERT INTO documents "),
    ("job", r"INSERT INTO jobs "),
    ("health", r"UPDATE workers SET .*\bhealthy="),
    ("cancel", r"UPDATE jobs SET .*\bcancel_requested_at="),
    ("pause", r"UPDATE jobs SET .*\bpaused_at="),
    ("sample", r"INSERT INTO worker_metrics "),
    ("leave", r"UPDATE coordinators SET .*\bended_at="),
)
_PATTERNS = tuple((sort, re.compile(pattern, re.DOTALL)) for sort, pattern in _SORTS)


def sort_of(statement: str) -> str | None:
    """What a statement shows its transaction to be about."""
    return next((sort for sort, pattern in _PATTERNS if pattern.match(statement)), None)


@dataclass(frozen=True, slots=True)
class Edge:
    """The `nth` transaction of a sort, counted in the life of one process, and the side of its commit."""

    side: str
    sort: str
    nth: int


@dataclass(frozen=True, slots=True)
class Hit:
    """An edge that a victim reached: the whole of what its transaction was about."""

    side: str
    sorts: tuple[str, ...]

    def line(self) -> str:
        """As it stands in the log."""
        return f"{self.side} {'+'.join(self.sorts)}\n"


def read_hits(log: str) -> list[Hit]:
    """What `Hit.line` wrote."""
    return [Hit(side, tuple(sorts.split("+"))) for side, sorts in map(str.split, log.splitlines())]
