"""What workers did over time: a row now and then for each, kept for a week."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select

from distllm.store.sql import insert_row
from distllm.store.tables import worker_metrics
from distllm.store.tx import Tx

LARGEST_DROP = 500
"""How many rows are looked at, and dropped if they are old, at a time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How a worker is at one moment, and what it did since its sample before.

    `failed` counts what was the worker's fault; `seconds` are those of its answers.
    """

    worker_id: int
    healthy: bool
    in_flight: int
    requests: int
    succeeded: int
    failed: int
    completion_tokens: int
    seconds: float


_ADD = insert_row(worker_metrics, *(column.name for column in worker_metrics.columns if column.name != "id"))

# Rows are in the order of time, so that the old ones are the first: no index on the time alone is needed.
_first = select(worker_metrics.c.id, worker_metrics.c.at).order_by(worker_metrics.c.id).limit(LARGEST_DROP).subquery()
_DROP = delete(worker_metrics).where(
    worker_metrics.c.id.in_(select(_first.c.id).where(_first.c.at < bindparam("before")))
)


def add_samples(tx: Tx, samples: Sequence[Sample], now: float) -> None:
    """Add a row for each of `samples`, taken at `now`."""
    tx.many(
        _ADD,
        (
            {
                "worker_id": each.worker_id,
                "at": now,
                "healthy": int(each.healthy),
                "in_flight": each.in_flight,
                "requests": each.requests,
                "succeeded": each.succeeded,
                "failed": each.failed,
                "completion_tokens": each.completion_tokens,
                "seconds": each.seconds,
            }
            for each in samples
        ),
    )


def drop_samples(tx: Tx, before: float) -> int:
    """Drop some of the rows from before a time; return how many, 0 once none is left."""
    return tx.run(_DROP, {"before": before})
