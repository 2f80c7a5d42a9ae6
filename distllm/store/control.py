"""What people do to a job: pause it, go on with it, cancel it, retry what failed or was cut.

Each function is one short transaction; those that work in chunks are repeated until they return nothing, and
can be gone on with by any process if that is killed between two.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, func, literal_column, or_, select, update

from distllm.domain.states import PromptState
from distllm.store.leases import count_moves
from distllm.store.sql import CANCELLED, DONE, FAILED, LEASED, PENDING, one_of
from distllm.store.submissions import finish_jobs
from distllm.store.tables import (
    attempts,
    job_counters,
    job_parts,
    jobs,
    prompts,
    refusals,
    results,
    templates,
    worker_models,
)
from distllm.store.tx import Row, Tx, as_list

CHUNK_PROMPTS = 5_000
"""How many prompts are moved in one transaction, so that others need not wait for long."""

MORE_ROOM = 2
"""How many times the tokens that cut an answer it gets when it is asked for again."""

_THE_JOB = jobs.c.id == bindparam("job")
_OPEN = (_THE_JOB, jobs.c.finished_at.is_(None), jobs.c.cancel_requested_at.is_(None))

_PAUSE = update(jobs).where(*_OPEN, jobs.c.paused_at.is_(None)).values(paused_at=bindparam("now"))
_GO_ON = update(jobs).where(_THE_JOB, jobs.c.paused_at.is_not(None)).values(paused_at=None)


def pause(tx: Tx, job_id: int, now: float) -> bool:
    """Lease nothing more of a job; false if it is paused, cancelled or ended already."""
    return _announced(tx, tx.run(_PAUSE, {"job": job_id, "now": now})) == 1


def go_on(tx: Tx, job_ids: Iterable[int]) -> int:
    """Let paused jobs be leased again; return how many were paused."""
    return _announced(tx, sum(tx.run(_GO_ON, {"job": job_id}) for job_id in job_ids))


# A job that is still being built is whole from now on, so that nobody builds more of it.
_CANCEL = (
    update(jobs)
    .where(*_OPEN)
    .values(
        cancel_requested_at=bindparam("now"),
        paused_at=None,
        submitted_at=func.coalesce(jobs.c.submitted_at, bindparam("now")),
    )
)


def request_cancel(tx: Tx, job_id: int, now: float) -> bool:
    """Lease nothing of a job ever again; false if it is cancelled or ended already. `cancel_some` ends it."""
    return _announced(tx, tx.run(_CANCEL, {"job": job_id, "now": now})) == 1


_END = {"state": CANCELLED, "holder": None, "finished_at": bindparam("now")}
_OF_JOB = prompts.c.job_id == bindparam("job")

_CANCEL_LEASED = update(prompts).where(_OF_JOB, prompts.c.state == LEASED).values(_END).returning(prompts.c.parent_id)
_CANCEL_READY = (
    update(prompts)
    .where(
        # Said twice: what is chosen may be leased before it is changed.
        prompts.c.state == PENDING,
        prompts.c.id.in_(
            select(prompts.c.id)
            .where(_OF_JOB, prompts.c.state == PENDING, prompts.c.waits_for == literal_column("0"))
            .limit(bindparam("count"))
        ),
    )
    .values(_END)
    .returning(prompts.c.parent_id)
)
_CANCEL_WAITING = (
    update(prompts)
    .where(_OF_JOB, prompts.c.state == PENDING, prompts.c.waits_for > literal_column("0"))
    .values(_END)
    .returning(prompts.c.parent_id)
)


# What it would have asked about is read for nothing else.
_FORGET_PARTS = delete(job_parts).where(job_parts.c.job_id == bindparam("job"))


def cancel_some(tx: Tx, job_id: int, now: float) -> int:
    """Cancel the next prompts of a job whose cancelling was requested; 0 once it has ended."""
    values = {"job": job_id, "now": now, "count": CHUNK_PROMPTS}
    tx.run(_FORGET_PARTS, values)
    pending = tx.rows(_CANCEL_READY, values)
    if len(pending) < CHUNK_PROMPTS:
        pending += tx.rows(_CANCEL_WAITING, values)
    # What was leased while this chose among what was pending is seen now.
    leased = tx.rows(_CANCEL_LEASED, values)
    _count(tx, job_id, leased, PromptState.LEASED, PromptState.CANCELLED)
    _count(tx, job_id, pending, PromptState.PENDING, PromptState.CANCELLED)
    finish_jobs(tx, [job_id], now)
    tx.announce()
    return len(leased) + len(pending) or tx.value(_LEFT, values)


# What went back to be asked again meanwhile is cancelled by the next step.
_LEFT = select(func.count()).select_from(
    select(prompts.c.id).where(_OF_JOB, prompts.c.state.in_((PENDING, LEASED))).limit(literal_column("1")).subquery()
)


# A cancel that was killed midway left its job without an end.
_CANCELLING = select(jobs.c.id).where(jobs.c.cancel_requested_at.is_not(None), jobs.c.finished_at.is_(None))


def unfinished_cancels(tx: Tx) -> list[int]:
    """The jobs whose cancelling was requested and has not ended."""
    return [job_id for (job_id,) in tx.rows(_CANCELLING, {})]


# Whoever asks for more may have looked at the job before it was cancelled: it stays ended.
_RETRIABLE = select(jobs.c.id).where(_THE_JOB, jobs.c.cancel_requested_at.is_(None)).with_for_update()
_REOPEN = update(jobs).where(_THE_JOB).values(finished_at=None)
_RETRY = (
    update(prompts)
    .where(
        prompts.c.state == FAILED,
        prompts.c.id.in_(select(prompts.c.id).where(_OF_JOB, prompts.c.state == FAILED).limit(bindparam("count"))),
    )
    .values(
        state=PENDING,
        finished_at=None,
        available_at=bindparam("now"),
        failures=0,
        losses=0,
        deaths_alone=0,
        error=None,
    )
    .returning(prompts.c.parent_id, prompts.c.id)
)
_TRUST = delete(refusals).where(one_of(refusals.c.prompt_id, "prompts"))


def retry_some(tx: Tx, job_id: int, now: float) -> int:
    """Put the next failed prompts of a job back to pending, as if they had never been tried; return how many.

    One that waited for a part that failed waits for it again. Nothing of a cancelled job is put back.
    """
    if tx.value(_RETRIABLE, {"job": job_id}) is None:
        return 0
    rows = tx.rows(_RETRY, {"job": job_id, "now": now, "count": CHUNK_PROMPTS})
    if rows:
        tx.run(_REOPEN, {"job": job_id})
        tx.run(_TRUST, {"prompts": as_list(prompt_id for _, prompt_id in rows)})
        _count(tx, job_id, rows, PromptState.FAILED, PromptState.PENDING)
    return _announced(tx, len(rows))


@dataclass(frozen=True, slots=True)
class Room:
    """What became of answers that were cut: how many are asked for again, and how many find no room for more."""

    again: int
    left: int


_TRUNCATED = select(func.sum(job_counters.c.truncated)).where(job_counters.c.job_id == bindparam("job"))
_CUT = (
    select(
        prompts.c.id,
        prompts.c.tokens,
        func.coalesce(prompts.c.max_tokens, templates.c.max_tokens),
        results.c.prompt_tokens,
        results.c.cached_tokens,
        results.c.completion_tokens,
        results.c.proof,
    )
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id)
    .join(templates, templates.c.id == prompts.c.template_id, isouter=True)
    .where(
        _OF_JOB,
        prompts.c.state == DONE,
        prompts.c.parent_id.is_(None),
        results.c.finish_reason == literal_column("'length'"),
    )
)
_LARGEST_WINDOW = (
    select(func.max(worker_models.c.context_length))
    .join_from(worker_models, jobs, _THE_JOB)
    .where(or_(worker_models.c.model == jobs.c.model, one_of(worker_models.c.model, "names")))
)
_KEEP_ANSWER = (
    update(attempts)
    .where(
        attempts.c.id
        == select(results.c.attempt_id).where(results.c.prompt_id == bindparam("prompt")).scalar_subquery()
    )
    .values(answer=select(results.c.answer).where(results.c.prompt_id == bindparam("prompt")).scalar_subquery())
)
_DROP = delete(results).where(results.c.prompt_id == bindparam("prompt"))
# With the next lease number, since the answer that was cut may be reported once more.
_ASK_AGAIN = (
    update(prompts)
    .where(prompts.c.id == bindparam("prompt"))
    .values(
        state=PENDING,
        finished_at=None,
        available_at=bindparam("now"),
        failures=0,
        lease=prompts.c.lease + literal_column("1"),
        max_tokens=bindparam("room"),
        tokens=bindparam("needs"),
    )
)


def retry_truncated(tx: Tx, job_id: int, names: Iterable[str], now: float) -> Room:
    """Put the prompts of a job whose answers were cut back to pending, with twice the room.

    The old answers stay with their attempts. `names` are what the job's model is called, beside its own
    name; an answer for which the largest window known has no more room stays as it is, and so does all of a
    cancelled job.
    """
    if tx.value(_RETRIABLE, {"job": job_id}) is None or not tx.value(_TRUNCATED, {"job": job_id}):
        return Room(0, 0)
    window = tx.value(_LARGEST_WINDOW, {"job": job_id, "names": as_list(names)})
    again = left = 0
    for prompt_id, needs, room, read, cached, written, proof in tx.rows(_CUT, {"job": job_id}):
        more = MORE_ROOM * room if window is None else min(MORE_ROOM * room, window - (needs - room))
        if more <= room:
            left += 1
            continue
        again += 1
        for statement in (_KEEP_ANSWER, _DROP):
            tx.run(statement, {"prompt": prompt_id})
        tx.run(_ASK_AGAIN, {"prompt": prompt_id, "room": more, "needs": needs - room + more, "now": now})
        count_moves(
            tx,
            job_id,
            0,
            PromptState.DONE,
            PromptState.PENDING,
            1,
            prompt_tokens=-(read or 0),
            cached_tokens=-(cached or 0),
            completion_tokens=-(written or 0),
            truncated=-1,
            unproven=-int(proof == "unproven"),
        )
    if _announced(tx, again):
        tx.run(_REOPEN, {"job": job_id})
    return Room(again, left)


def _announced(tx: Tx, changed: int) -> int:
    """How much has changed, which is announced if it is anything."""
    if changed:
        tx.announce()
    return changed


def _count(tx: Tx, job_id: int, rows: Iterable[Row], source: PromptState, target: PromptState) -> None:
    """Move the counters of a job; each row begins with the prompt's parent."""
    for part, number in Counter(int(row[0] is not None) for row in rows).items():
        count_moves(tx, job_id, part, source, target, number)
