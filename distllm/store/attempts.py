"""Attempts: each try of a prompt on a worker, and what the workers are counted by."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, literal_column, or_, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.models import ErrorClass, Outcome
from distllm.domain.policy import Verdict
from distllm.store.leases import Lease
from distllm.store.sql import one_of
from distllm.store.tables import attempts, prompts, readings, workers
from distllm.store.tx import Tx, as_list


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
    there = exists().where(prompts.c.id == bindparam("prompt_id"), prompts.c.job_id == bindparam("job"))
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
        "job": sent.lease.job_id,
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

_NO_WORK: dict[str, Any] = dict.fromkeys(("asked", "good", "bad", "written"), 0) | {
    "took": 0.0,
    "least": None,
    "most": None,
}


def _better(choose: Callable[..., ColumnElement[Any]], column: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    """The better of a column and a value bound to `name`, either of which may be NULL."""
    value: ColumnElement[Any] = bindparam(name)
    return choose(func.coalesce(column, value), func.coalesce(value, column))


_WORKED = (
    update(workers)
    .where(workers.c.id == bindparam("worker"))
    .values(
        requests=workers.c.requests + bindparam("asked"),
        succeeded=workers.c.succeeded + bindparam("good"),
        failed=workers.c.failed + bindparam("bad"),
        completion_tokens=workers.c.completion_tokens + bindparam("written"),
        seconds=workers.c.seconds + bindparam("took"),
        min_seconds=_better(func.min, workers.c.min_seconds, "least"),
        max_seconds=_better(func.max, workers.c.max_seconds, "most"),
        last_seen_at=bindparam("now"),
    )
)


_PROMPTS = select(prompts.c.id, prompts.c.job_id).where(one_of(prompts.c.id, "prompts"))
_REPORTED = select(attempts.c.id, attempts.c.outcome).where(
    one_of(attempts.c.id, "attempts"), attempts.c.outcome.is_not(None)
)


def reported_outcomes(tx: Tx, ends: Iterable[Settlement]) -> dict[int, str]:
    """By the id of an attempt, how it ended, as it was reported before."""
    return dict(tx.rows(_REPORTED, {"attempts": as_list(each.sent.id for each in ends)}))


def record_ends(tx: Tx, ends: Sequence[tuple[Settlement, str]]) -> list[Settlement]:
    """Write how attempts ended, and count them for their workers; return those that are news.

    A second report changes nothing, nor does one of a prompt that was pruned while it was in flight, cancelled and
    with its job.
    """
    if not ends:
        return []
    there = set(tx.rows(_PROMPTS, {"prompts": as_list(each.sent.lease.prompt_id for each, _ in ends)}))
    reported = reported_outcomes(tx, [each for each, _ in ends])
    new = []
    for each, label in ends:
        lease, before = each.sent.lease, reported.get(each.sent.id)
        if (lease.prompt_id, lease.job_id) in there and (before is None or (before == "lost" and label != "lost")):
            reported[each.sent.id] = label
            new.append((each, label))
    tx.many(_ENDED, [_sent_row(each.sent) | _end_row(each, label) for each, label in new])
    news = [each for each, _ in new]
    _count_work(tx, news)
    return news


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
        "answer": (outcome.answer or None) if label == "stale" else None,
    }


def _count_work(tx: Tx, ends: Iterable[Settlement]) -> None:
    worked: dict[int, dict[str, Any]] = {}
    read: dict[int, dict[str, Any]] = {}
    for each in ends:
        outcome = each.outcome
        if outcome.error_class is ErrorClass.RELEASED:
            # It was taken from the worker, which had no part in that.
            continue
        sums = worked.setdefault(each.sent.worker_id, _NO_WORK | {"worker": each.sent.worker_id})
        sums["asked"] += 1
        sums["bad"] += outcome.error_class in (ErrorClass.BROKEN, ErrorClass.REFUSED, ErrorClass.LOST)
        sums["written"] += outcome.usage.completion_tokens or 0
        sums["now"] = each.finished_at
        if outcome.error_class is not None:
            continue
        sums["good"] += 1
        sums["took"] += outcome.seconds
        sums["least"] = outcome.seconds if sums["least"] is None else min(sums["least"], outcome.seconds)
        sums["most"] = outcome.seconds if sums["most"] is None else max(sums["most"], outcome.seconds)
        if outcome.usage.prompt_tokens is not None and not each.sent.lease.level:
            reading_id = each.sent.lease.reading_id
            read[reading_id] = {
                "reading": reading_id,
                "read": outcome.usage.prompt_tokens,
                "now": each.finished_at,
            }
    tx.many(_WORKED, worked.values())
    tx.many(_READ, read.values())
