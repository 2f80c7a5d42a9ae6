"""Prompts that fail without an attempt of their own: too large for every window, or waiting for a part that failed."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Text, bindparam, cast, func, literal_column, select, update

from distllm.domain.states import PromptState
from distllm.store.leases import count_moves
from distllm.store.sql import FAILED, PENDING, one_of
from distllm.store.submissions import finish_jobs
from distllm.store.tables import jobs, prompts, refusals
from distllm.store.tx import Tx, as_list

# A part that failed for good fails what waited for it.
_PART_FAILED = (
    update(prompts)
    .where(prompts.c.id == bindparam("parent"), prompts.c.state == PENDING)
    .values(state=FAILED, finished_at=bindparam("now"), error=bindparam("reason"))
    .returning(prompts.c.job_id, prompts.c.parent_id)
)


def fail_parents(
    tx: Tx, parent_id: int | None, part: int | None, parts: int | None, reason: str | None, now: float
) -> None:
    """Fail what waited for `part` of `parts` that failed for good, or for a merge of some, level by level."""
    named = f"parts could not be put together: {reason}" if part is None else f"part {part} of {parts}: {reason}"
    while parent_id is not None:
        rows = tx.rows(_PART_FAILED, {"parent": parent_id, "now": now, "reason": named})
        if not rows:
            return
        job_id, parent_id = rows[0]
        count_moves(tx, job_id, int(parent_id is not None), PromptState.PENDING, PromptState.FAILED, 1)


# What no worker's window holds is failed with the figures rather than sent to be cut.
_UNFIT = (
    update(prompts)
    .where(
        prompts.c.job_id == bindparam("job"),
        prompts.c.state == PENDING,
        prompts.c.waits_for == literal_column("0"),
        prompts.c.tokens > bindparam("window"),
    )
    .values(
        state=FAILED,
        finished_at=bindparam("now"),
        error=literal_column("'needs a context window of '", Text)
        + cast(prompts.c.tokens, Text)
        + literal_column("' tokens, and the largest here holds '", Text)
        + cast(bindparam("window", type_=BigInteger), Text)
        + literal_column("': give a worker a larger one'", Text),
    )
    .returning(prompts.c.parent_id, prompts.c.part, prompts.c.parts, prompts.c.error)
)
# What all of them have refused already: the last worker that had not may have left the fleet since.
_REFUSED_BY_ALL = (
    update(prompts)
    .where(
        prompts.c.job_id == bindparam("job"),
        prompts.c.state == PENDING,
        prompts.c.id.in_(
            select(refusals.c.prompt_id)
            .where(one_of(refusals.c.worker_id, "workers"))
            .group_by(refusals.c.prompt_id)
            .having(func.count() == bindparam("all_of_them"))
        ),
    )
    .values(state=FAILED, finished_at=bindparam("now"))
    .returning(prompts.c.parent_id, prompts.c.part, prompts.c.parts, prompts.c.error)
)
_OF_MODEL = select(jobs.c.id).where(
    jobs.c.finished_at.is_(None), jobs.c.submitted_at.is_not(None), jobs.c.model == bindparam("model_is")
)


def fail_unfit(tx: Tx, model: str, window: int, workers: Sequence[int], now: float) -> int:
    """Fail all prompts for `model` that need more than `window` tokens, or that all of `workers` refused.

    `workers` are all that have the model, and `window` is their largest. Returns how many failed.
    """
    count = 0
    values = {"window": window, "workers": as_list(workers), "all_of_them": len(workers), "now": now}
    for (job_id,) in tx.rows(_OF_MODEL, {"model_is": model}):
        failed = tx.rows(_UNFIT, values | {"job": job_id}) + tx.rows(_REFUSED_BY_ALL, values | {"job": job_id})
        for parent_id, part, parts, reason in failed:
            count_moves(tx, job_id, int(parent_id is not None), PromptState.PENDING, PromptState.FAILED, 1)
            fail_parents(tx, parent_id, part, parts, reason, now)
        if failed:
            finish_jobs(tx, [job_id], now)
        count += len(failed)
    return count
