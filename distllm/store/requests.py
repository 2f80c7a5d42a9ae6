"""Prompts that bring their own request, of a batch: written in chunks, and found again by the batch's key.

The same batch submitted again is the same job: what has an answer keeps it, what failed is asked anew, and a
batch whose writing was cut short is gone on with where it stopped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.store.control import go_on
from distllm.store.reuse import reuse
from distllm.store.sql import COUNT, NOTHING_COUNTED, insert_row, none_of
from distllm.store.submissions import LAST_PROMPT, finish_jobs
from distllm.store.tables import jobs, prompts, readings, results
from distllm.store.tx import Tx, as_list

CHUNK_REQUESTS = 500
"""How many prompts are written in one transaction."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What is known of a batch before its prompts are written. `key` tells the same batch made again.

    A `fresh` one reuses no answer.
    """

    name: str
    model: str
    params: Mapping[str, Any]
    priority: int
    key: str
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class NewRequest:
    """One prompt with its request.

    `prefix_hash` tells what a server must read for it, `system` is its system message, or empty;
    `reading_tokens` are those of what is read, `tokens` the context window it needs, the `max_tokens` of its
    answer included. `body` is what is asked: its form is the business of whoever sends it.
    """

    prefix_hash: str
    system: str
    reading_tokens: int
    tokens: int
    max_tokens: int
    body: str


_KNOWN = select(jobs.c.id, jobs.c.submitted_at, jobs.c.finished_at, jobs.c.cancel_requested_at).where(
    jobs.c.submit_key == bindparam("key")
)
_FORGET = update(jobs).where(jobs.c.submit_key == bindparam("key")).values(submit_key=None)
# EXISTS rather than a join, which might begin with the answers of all jobs.
_OTHER_WEIGHTS = (
    select(prompts.c.id)
    .where(
        prompts.c.job_id == bindparam("job"),
        exists().where(
            results.c.prompt_id == prompts.c.id,
            results.c.digest.is_not(None),
            none_of(results.c.digest, "digests"),
        ),
    )
    .limit(1)
)
_NEW = insert_row(
    jobs, "name", "submit_key", "model", "params", "priority", "request_hash", "fresh", "created_at"
).returning(jobs.c.id)


def open_batch(tx: Tx, batch: NewBatch, digests: Iterable[str], now: float) -> tuple[int, bool]:
    """The job of a batch, and whether its prompts are written: a new one, or the one that the same batch made.

    That one goes on, also if it was paused. It is not the same if it was cancelled, nor if it has ended with
    answers of weights that are not among `digests`, which the fleet has: what still holds of those is reused.
    """
    tx.alone(f"request {batch.key}")
    for job_id, submitted_at, finished_at, cancelled_at in tx.rows(_KNOWN, {"key": batch.key}):
        strange = {"job": job_id, "digests": as_list(digests)}
        if cancelled_at is None and (finished_at is None or tx.value(_OTHER_WEIGHTS, strange) is None):
            go_on(tx, [job_id])
            return int(job_id), submitted_at is not None
        tx.run(_FORGET, {"key": batch.key})
    row = {
        "name": batch.name,
        "submit_key": batch.key,
        "model": batch.model,
        "params": json.dumps(batch.params, sort_keys=True),
        "priority": batch.priority,
        "request_hash": batch.key,
        "fresh": int(batch.fresh),
        "created_at": now,
    }
    return int(tx.value(_NEW, row)), False


_BUILT = select(jobs.c.built, jobs.c.submitted_at, jobs.c.model, jobs.c.fresh).where(jobs.c.id == bindparam("job"))
_READING = (
    upsert_into(readings)
    .values({name: bindparam(name) for name in ("model", "prefix_hash", "tokens", "system")})
    .on_conflict_do_nothing()
)
_PROMPT = insert(prompts).from_select(
    ["job_id", "reading_id", "tokens", "max_tokens", "body"],
    select(bindparam("job"), readings.c.id, bindparam("needs"), bindparam("room"), bindparam("asked")).where(
        readings.c.model == bindparam("model_is"), readings.c.prefix_hash == bindparam("hash")
    ),
)
_ADVANCE = update(jobs).where(jobs.c.id == bindparam("job")).values(built=bindparam("end"))


def add_requests(
    tx: Tx, job_id: int, first: int, requests: Sequence[NewRequest], digests: Iterable[str], now: float
) -> None:
    """Write the prompts of a batch from place `first` on; those that are written already are left alone.

    What is answered already is not asked again (see `reuse` for `digests`), unless the batch is fresh.
    """
    tx.alone(f"prompts of job {job_id}")
    built, submitted_at, model, fresh = tx.rows(_BUILT, {"job": job_id})[0]
    new = requests[max(0, built - first) :]
    if submitted_at is not None or not new:
        return
    last = tx.value(LAST_PROMPT, {})
    tx.many(
        _READING,
        (
            {
                "model": model,
                "prefix_hash": each.prefix_hash,
                "tokens": each.reading_tokens,
                "system": each.system,
            }
            for each in new
        ),
    )
    tx.many(
        _PROMPT,
        (
            {
                "job": job_id,
                "model_is": model,
                "hash": each.prefix_hash,
                "needs": each.tokens,
                "room": each.max_tokens,
                "asked": each.body,
            }
            for each in new
        ),
    )
    reused, unproven = (0, 0) if fresh else reuse(tx, job_id, last, digests, now, requests=True)
    counts = {"pending": len(new) - reused, "done": reused, "reused": reused, "unproven": unproven}
    tx.run(COUNT, NOTHING_COUNTED | {"job_id": job_id, "coordinator_id": tx.counters, "part": 0} | counts)
    tx.run(_ADVANCE, {"job": job_id, "end": first + len(requests)})


_SUBMIT = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.submitted_at.is_(None))
    .values(submitted_at=bindparam("now"))
)


def submit_batch(tx: Tx, job_id: int, now: float) -> None:
    """Let the prompts of a batch be leased: all are written."""
    if tx.run(_SUBMIT, {"job": job_id, "now": now}):
        finish_jobs(tx, [job_id], now)
        tx.announce()
