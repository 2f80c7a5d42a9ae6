"""Prompts that bring their own request, of a batch: written in chunks, and found again by the batch's key.

The same batch submitted again is the same job: what has an answer keeps it, what failed is asked anew, and a
batch whose writing was cut short is gone on with where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.states import PromptState
from distllm.store.leases import count_moves
from distllm.store.sql import FAILED, PENDING, insert_row
from distllm.store.sqlite import Tx
from distllm.store.submissions import FINISH
from distllm.store.tables import jobs, prompts, readings, refusals

CHUNK_REQUESTS = 500
"""How many prompts are written in one transaction."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What is known of a batch before its prompts are written. `key` tells the same batch made again."""

    name: str
    model: str
    params: Mapping[str, Any]
    priority: int
    key: str


@dataclass(frozen=True, slots=True)
class NewRequest:
    """One prompt with its request.

    `prefix_hash` tells what a server must read for it, `system` is its system message, or empty;
    `reading_tokens` are those of what is read, `tokens` the context window it needs, its answer included.
    `body` is what is asked: its form is the business of whoever sends it.
    """

    prefix_hash: str
    system: str
    reading_tokens: int
    tokens: int
    body: str


_KNOWN = select(jobs.c.id, jobs.c.submitted_at, jobs.c.cancel_requested_at).where(jobs.c.submit_key == bindparam("key"))
# A batch that was cancelled is not what is meant by the same one asked again.
_FORGET = update(jobs).where(jobs.c.submit_key == bindparam("key")).values(submit_key=None)
_NEW = insert_row(jobs, "name", "submit_key", "model", "params", "priority", "request_hash", "created_at").returning(
    jobs.c.id
)


def open_batch(tx: Tx, batch: NewBatch, now: float) -> int:
    """The id of the job of a batch: a new one, or the one that the same batch made before.

    That one goes on, also if it was paused, and what failed in it is pending again.
    """
    for job_id, submitted_at, cancelled_at in tx.rows(_KNOWN, {"key": batch.key}):
        if cancelled_at is None:
            if submitted_at is not None:
                _reopen(tx, job_id, now)
            return int(job_id)
        tx.run(_FORGET, {"key": batch.key})
    return int(
        tx.value(
            _NEW,
            {
                "name": batch.name,
                "submit_key": batch.key,
                "model": batch.model,
                "params": json.dumps(batch.params, sort_keys=True),
                "priority": batch.priority,
                "request_hash": batch.key,
                "created_at": now,
            },
        )
    )


_GO_ON = update(jobs).where(jobs.c.id == bindparam("job")).values(paused_at=None)
_UNREFUSE = delete(refusals).where(
    refusals.c.prompt_id.in_(
        select(prompts.c.id).where(prompts.c.job_id == bindparam("job"), prompts.c.state == FAILED)
    )
)
_AGAIN = (
    update(prompts)
    .where(prompts.c.job_id == bindparam("job"), prompts.c.state == FAILED)
    .values(state=PENDING, finished_at=None, available_at=bindparam("now"), failures=0, error=None)
)
_UNFINISH = update(jobs).where(jobs.c.id == bindparam("job")).values(finished_at=None)


def _reopen(tx: Tx, job_id: int, now: float) -> None:
    tx.run(_GO_ON, {"job": job_id})
    tx.run(_UNREFUSE, {"job": job_id})
    if failed := tx.run(_AGAIN, {"job": job_id, "now": now}):
        count_moves(tx, job_id, 0, PromptState.FAILED, PromptState.PENDING, failed)
        tx.run(_UNFINISH, {"job": job_id})


_BUILT = select(jobs.c.built, jobs.c.submitted_at, jobs.c.model).where(jobs.c.id == bindparam("job"))
_READING = (
    upsert_into(readings)
    .values({name: bindparam(name) for name in ("model", "prefix_hash", "tokens", "system")})
    .on_conflict_do_nothing()
)
_PROMPT = insert(prompts).from_select(
    ["job_id", "reading_id", "tokens", "body"],
    select(bindparam("job"), readings.c.id, bindparam("needs"), bindparam("asked")).where(
        readings.c.model == bindparam("model_is"), readings.c.prefix_hash == bindparam("hash")
    ),
)
_ADVANCE = update(jobs).where(jobs.c.id == bindparam("job")).values(built=bindparam("end"))


def add_requests(tx: Tx, job_id: int, first: int, requests: Sequence[NewRequest]) -> None:
    """Write the prompts of a batch from place `first` on; those that are written already are left alone."""
    built, submitted_at, model = tx.rows(_BUILT, {"job": job_id})[0]
    new = requests[max(0, built - first) :]
    if submitted_at is not None or not new:
        return
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
            {"job": job_id, "model_is": model, "hash": each.prefix_hash, "needs": each.tokens, "asked": each.body}
            for each in new
        ),
    )
    count_moves(tx, job_id, 0, PromptState.PENDING, PromptState.PENDING, 0, pending=len(new))
    tx.run(_ADVANCE, {"job": job_id, "end": first + len(requests)})


_SUBMIT = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.submitted_at.is_(None))
    .values(submitted_at=bindparam("now"))
)


def submit_batch(tx: Tx, job_id: int, now: float) -> None:
    """Let the prompts of a batch be leased: all are written."""
    if tx.run(_SUBMIT, {"job": job_id, "now": now}):
        tx.run(FINISH, {"job": job_id, "now": now})
