"""Attempts: each try of a prompt on a worker, and what the workers are counted by."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, literal_column, or_, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.models import ErrorClass, Outcome
from distllm.domain.policy import Verdict
from distllm.store.leases import Lease
from distllm.store.sqlite import Tx
from distllm.store.tables import attempts, prompts, readings, workers


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt that has begun: `id` is known before it is written, times are seconds since 1970."""

    id: int
    lease: Lease
    worker_id: int
    coordinator_id: int
    started_at: float
    sent_tokens: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """An attempt that has ended. `others` are the workers that a refused prompt could still go to.

    `digest` tells the very weights that were asked, None where the server does not.
    """

    sent: Sent
    outcome: Outcome
    verdict: Verdict
    proof: str
    finished_at: float
    others: tuple[int, ...]
    digest: str | None = None


_SENT_COLUMNS = ("id", "prompt_id", "lease", "worker_id", "coordinator_id", "started_at", "sent_tokens")
_END_COLUMNS = (
    "finished_at",
    "first_token_seconds",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "prefill_seconds",
    "decode_seconds",
    "outcome",
    "error",
    "answer",
)


def _insert(columns: tuple[str, ...]) -> Insert:
    """Nothing is told of a prompt that was pruned while it was in flight, cancelled and with its job."""
    there = exists().where(prompts.c.id == bindparam("prompt_id"))
    return upsert_into(attempts).from_select(columns, select(*map(bindparam, columns)).where(there))


# Written with the next commit after sending; an attempt that ended before that is written whole by _ENDED.
_BEGUN = _insert(_SENT_COLUMNS).on_conflict_do_nothing()

# A second report of an attempt must not relabel the first.
_ended = _insert(_SENT_COLUMNS + _END_COLUMNS)
_ENDED = _ended.on_conflict_do_update(
    index_elements=[attempts.c.id],
    set_={name: _ended.excluded[name] for name in _END_COLUMNS},
    where=or_(
        attempts.c.outcome.is_(None),
        and_(attempts.c.outcome == literal_column("'lost'"), _ended.excluded.outcome != literal_column("'lost'")),
    ),
)


def record_sent(tx: Tx, sent: Iterable[Sent]) -> None:
    """Write attempts that are in flight."""
    tx.many(_BEGUN, (_sent_row(each) for each in sent))


def _sent_row(sent: Sent) -> dict[str, Any]:
    return {
        "id": sent.id,
        "prompt_id": sent.lease.prompt_id,
        "lease": sent.lease.number,
        "worker_id": sent.worker_id,
        "coordinator_id": sent.coordinator_id,
        "started_at": sent.started_at,
        "sent_tokens": sent.sent_tokens,
    }


# The server's own count of a reading, the question included, is better than any estimate.
_READ = (
    update(readings)
    .where(readings.c.id == bindparam("reading"))
    .values(tokens_read=bindparam("read"), read_at=bindparam("now"))
)

_WORKED = (
    update(workers)
    .where(workers.c.id == bindparam("worker"))
    .values(
        requests=workers.c.requests + 1,
        succeeded=workers.c.succeeded + bindparam("good"),
        failed=workers.c.failed + bindparam("bad"),
        completion_tokens=workers.c.completion_tokens + bindparam("written"),
        seconds=workers.c.seconds + bindparam("took") * bindparam("good"),
        min_seconds=func.min(func.coalesce(workers.c.min_seconds, bindparam("good_took")), bindparam("good_took")),
        max_seconds=func.max(func.coalesce(workers.c.max_seconds, bindparam("good_took")), bindparam("good_took")),
        last_seen_at=bindparam("now"),
    )
)


def record_end(tx: Tx, each: Settlement, label: str) -> None:
    """Write how an attempt ended, and count it for its worker; a second report changes nothing."""
    if tx.run(_ENDED, _sent_row(each.sent) | _end_row(each, label)):
        _count_work(tx, each)


def _end_row(each: Settlement, label: str) -> dict[str, Any]:
    outcome, usage = each.outcome, each.outcome.usage
    return {
        "finished_at": each.finished_at,
        "first_token_seconds": outcome.first_token_seconds,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "prefill_seconds": usage.prefill_seconds,
        "decode_seconds": usage.decode_seconds,
        "outcome": label,
        "error": outcome.error,
        "answer": outcome.answer if label == "stale" else None,
    }


def _count_work(tx: Tx, each: Settlement) -> None:
    if each.outcome.error_class is ErrorClass.RELEASED:
        # It was taken from the worker, which had no part in that.
        return
    good = each.outcome.error_class is None
    tx.run(
        _WORKED,
        {
            "worker": each.sent.worker_id,
            "good": int(good),
            "bad": int(each.outcome.error_class in (ErrorClass.BROKEN, ErrorClass.REFUSED, ErrorClass.LOST)),
            "written": each.outcome.usage.completion_tokens or 0,
            "took": each.outcome.seconds,
            "good_took": each.outcome.seconds if good else None,
            "now": each.finished_at,
        },
    )
    if good and each.outcome.usage.prompt_tokens is not None:
        tx.run(
            _READ,
            {
                "reading": each.sent.lease.reading_id,
                "read": each.outcome.usage.prompt_tokens,
                "now": each.finished_at,
            },
        )
