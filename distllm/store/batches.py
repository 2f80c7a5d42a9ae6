"""Batches of OpenAI's API: each is a job, and a line of its input is a prompt of that, or cannot be asked.

What the job knows is not kept twice: only what its batch was asked for, when it came to what, and how it ended.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, case, exists, func, literal_column, select, update

from distllm.store.reads import Reader, Record
from distllm.store.requests import NewBatch, NewRequest, add_requests, open_batch, submit_batch
from distllm.store.sql import insert_row
from distllm.store.submissions import LAST_PROMPT
from distllm.store.tables import batch_lines, batches, jobs, prompts
from distllm.store.tx import Tx


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch was asked for. `metadata` is JSON; its results are kept for `output_seconds`."""

    endpoint: str
    input_file: str
    metadata: str | None
    output_seconds: float | None
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line of the input, by its number: what it asks, or the error that it is answered with, as JSON."""

    ordinal: int
    custom_id: str
    request: NewRequest | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a batch ended: its last status, the keys of its files, its counts, and the tokens that it took, as JSON."""

    status: str
    output_file: str | None
    error_file: str | None
    completed: int
    failed: int
    usage: str


_NEW = insert_row(
    batches, "key", "endpoint", "input_file", "metadata", "output_seconds", "created_at", "expires_at"
).returning(batches.c.key)


def create_batch(tx: Tx, wanted: Wanted) -> str:
    """Make a batch that is still to be looked through; its key."""
    row = {
        "key": f"batch_{uuid.uuid4().hex}",
        "endpoint": wanted.endpoint,
        "input_file": wanted.input_file,
        "metadata": wanted.metadata,
        "output_seconds": wanted.output_seconds,
        "created_at": wanted.created_at,
        "expires_at": wanted.expires_at,
    }
    return str(tx.value(_NEW, row))


_THE_BATCH = batches.c.id == bindparam("batch")
_OPEN = (_THE_BATCH, batches.c.ended_at.is_(None), batches.c.cancelling_at.is_(None))
_CANCEL = (
    update(batches)
    .where(batches.c.key == bindparam("key"), batches.c.ended_at.is_(None))
    .values(cancelling_at=func.coalesce(batches.c.cancelling_at, bindparam("now")))
)


def cancel_batch(tx: Tx, key: str, now: float) -> bool:
    """Let a batch end with what is answered; false if it has ended already."""
    return tx.run(_CANCEL, {"key": key, "now": now}) == 1


_FAIL = update(batches).where(*_OPEN).values(status="failed", ended_at=bindparam("now"), errors=bindparam("faults"))


def fail_batch(tx: Tx, batch_id: int, faults: Sequence[dict[str, Any]], now: float) -> None:
    """Nothing of a batch is asked, because of `faults`."""
    tx.run(_FAIL, {"batch": batch_id, "faults": json.dumps(list(faults)), "now": now})


_STANDS = select(batches.c.key, batches.c.job_id).where(*_OPEN)
_ACCEPT = (
    update(batches)
    .where(_THE_BATCH)
    .values(job_id=bindparam("job"), model=bindparam("asked_of"), total=bindparam("lines"))
)


def accept_batch(tx: Tx, batch_id: int, model: str | None, job_model: str, lines: int, now: float) -> int | None:
    """Begin the job of a batch whose lines are all sound, or go on with it; None if the batch was cancelled.

    `model` is what the lines call the model that the job knows as `job_model`.
    """
    tx.alone(f"batch {batch_id}")
    for key, job_id in tx.rows(_STANDS, {"batch": batch_id}):
        if job_id is None:
            job = NewBatch(name=key, model=job_model, params={}, priority=0, key=f"openai {key}")
            job_id, _ = open_batch(tx, job, (), now)
        tx.run(_ACCEPT, {"batch": batch_id, "job": job_id, "asked_of": model, "lines": lines})
        return int(job_id)
    return None


_WRITTEN = select(func.coalesce(func.max(batch_lines.c.ordinal), literal_column("-1"))).where(
    batch_lines.c.batch_id == bindparam("batch")
)
_JOB = (
    select(jobs.c.id, jobs.c.built)
    .join_from(batches, jobs, jobs.c.id == batches.c.job_id)
    .where(*_OPEN, jobs.c.submitted_at.is_(None))
)
_NEWER = (
    select(prompts.c.id)
    .where(prompts.c.id > bindparam("last"), prompts.c.job_id == bindparam("job"))
    .order_by(prompts.c.id)
)
_LINE = insert_row(batch_lines, "batch_id", "ordinal", "prompt_id", "custom_id", "error")
_REFUSED = update(batches).where(_THE_BATCH).values(refused=batches.c.refused + bindparam("more"))


def add_lines(tx: Tx, batch_id: int, lines: Sequence[NewLine], digests: Iterable[str], now: float) -> bool:
    """Write the next lines of a batch with their prompts, but for those that are written; false if it was cancelled.

    What is answered already, in another batch too, is not asked again (see `reuse` for `digests`).
    """
    tx.alone(f"batch {batch_id}")
    found = tx.rows(_JOB, {"batch": batch_id})
    if not found:
        return False
    [(job_id, built)] = found
    written = tx.value(_WRITTEN, {"batch": batch_id})
    new = [line for line in lines if line.ordinal > written]
    asked = [line.request for line in new if line.request is not None]
    last = tx.value(LAST_PROMPT, {})
    add_requests(tx, job_id, built, asked, digests, now)
    ids = iter([prompt_id for (prompt_id,) in tx.rows(_NEWER, {"last": last, "job": job_id})])
    tx.many(
        _LINE,
        [
            {
                "batch_id": batch_id,
                "ordinal": line.ordinal,
                "prompt_id": None if line.request is None else next(ids),
                "custom_id": line.custom_id,
                "error": line.error,
            }
            for line in new
        ],
    )
    tx.run(_REFUSED, {"batch": batch_id, "more": len(new) - len(asked)})
    return True


_BEGIN = update(batches).where(*_OPEN).values(in_progress_at=bindparam("now"))


def begin_batch(tx: Tx, batch_id: int, job_id: int, now: float) -> None:
    """Let the prompts of a batch be asked, all of whose lines are written; not if it was cancelled."""
    if tx.run(_BEGIN, {"batch": batch_id, "now": now}):
        submit_batch(tx, job_id, now)


_FINALIZE = (
    update(batches).where(_THE_BATCH).values(finalizing_at=func.coalesce(batches.c.finalizing_at, bindparam("now")))
)


def finalize_batch(tx: Tx, batch_id: int, now: float) -> None:
    """Nothing more is asked of a batch: its results are written next."""
    tx.run(_FINALIZE, {"batch": batch_id, "now": now})


# Its end is another if it was retried and has ended again meanwhile.
_OTHER_END = exists().where(jobs.c.id == batches.c.job_id, jobs.c.finished_at.is_distinct_from(bindparam("seen")))
_WAIT_AGAIN = update(batches).where(_THE_BATCH, batches.c.ended_at.is_(None), _OTHER_END).values(finalizing_at=None)


def wait_again(tx: Tx, batch_id: int, seen: float | None) -> bool:
    """Put a batch back in progress whose job was retried after its end at `seen`; false if that end still stands."""
    return tx.run(_WAIT_AGAIN, {"batch": batch_id, "seen": seen}) == 1


_END = (
    update(batches)
    .where(_THE_BATCH, batches.c.ended_at.is_(None))
    .values(
        {name: bindparam(name) for name in ("output_file", "error_file", "completed", "failed", "usage")}
        | {
            "ended_at": bindparam("now"),
            # Whoever cancelled it while its results were written was told that it would be.
            "status": case(
                (batches.c.cancelling_at.is_not(None), literal_column("'cancelled'")), else_=bindparam("status")
            ),
        }
    )
    .returning(batches.c.status)
)


def end_batch(tx: Tx, batch_id: int, ended: Ended, now: float) -> str:
    """A batch has ended; its files are whole. Its status, which is `cancelled` if it was cancelled meanwhile."""
    row = {
        "batch": batch_id,
        "now": now,
        "status": ended.status,
        "output_file": ended.output_file,
        "error_file": ended.error_file,
        "completed": ended.completed,
        "failed": ended.failed,
        "usage": ended.usage,
    }
    return str(tx.value(_END, row))


async def batch_of(reader: Reader, key: str) -> Record | None:
    """A batch: the columns of `batches`, where its counts are those of its job until it has ended.

    And `job_finished_at`, the end of its job.
    """
    return await reader.row(f"{_BATCHES} WHERE b.key = :key", key=key)


async def batch_page(reader: Reader, after: str | None, limit: int) -> list[Record]:
    """The batches that follow the one with the key `after`, newest first, as `batch_of` gives them."""
    return await reader.rows(_PAGE, after=after, limit=limit)


async def unended_batches(reader: Reader) -> list[Record]:
    """The batches that have not ended, oldest first, as `batch_of` gives them."""
    return await reader.rows(f"{_BATCHES} WHERE b.ended_at IS NULL ORDER BY b.id")


async def line_page(reader: Reader, batch_id: int, after: int, limit: int) -> list[Record]:
    """The lines of a batch that follow line `after`, each with what came of it."""
    return await reader.rows(_LINES, batch=batch_id, after=after, limit=limit)


_BATCHES = """
SELECT b.id, b.key, b.job_id, b.endpoint, b.input_file, b.metadata, b.model, b.output_seconds, b.total, b.created_at,
       b.expires_at, b.in_progress_at, b.finalizing_at, b.cancelling_at, b.ended_at, b.status, b.output_file,
       b.error_file, b.errors, b.usage, j.finished_at AS job_finished_at,
       coalesce(b.completed, (SELECT sum(c.done) FROM job_counters c
                               WHERE c.job_id = b.job_id AND c.part = 0), 0) AS completed,
       coalesce(b.failed, b.refused + coalesce((SELECT sum(c.failed) FROM job_counters c
                                                 WHERE c.job_id = b.job_id AND c.part = 0), 0)) AS failed
  FROM batches b LEFT JOIN jobs j ON j.id = b.job_id
"""

_PAGE = f"""
{_BATCHES} WHERE b.id < (SELECT id FROM batches WHERE key = :after) OR :after IS NULL ORDER BY b.id DESC LIMIT :limit
"""

_LINES = """
SELECT l.ordinal, l.custom_id, l.error AS refused, p.state, p.error, p.lease = 0 AS unasked,
       CASE p.state WHEN 'failed'
                    THEN (SELECT a.outcome FROM attempts a WHERE a.prompt_id = p.id ORDER BY a.id DESC LIMIT 1)
       END AS outcome, r.answer, r.thinking, r.model, r.finish_reason,
       r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.finished_at
  FROM batch_lines l LEFT JOIN prompts p ON p.id = l.prompt_id LEFT JOIN results r ON r.prompt_id = l.prompt_id
 WHERE l.batch_id = :batch AND l.ordinal > :after ORDER BY l.ordinal LIMIT :limit
"""
