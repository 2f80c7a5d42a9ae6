"""Prompts that were in flight whenever somebody went down: asked alone, and failed if that is what they do.

A death accuses everything that was in flight, so by itself it condemns nothing. After a few of them a prompt is
asked with nothing else in flight and its attempt on disk first; only who goes down with it then, again and again,
makes it fail.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, exists, literal_column, select, update

from distllm.domain.models import Ask
from distllm.domain.policy import DEATHS_TO_CONDEMN, LONGEST_WAIT_SECONDS, LOSSES_TO_SUSPECT, POISON
from distllm.domain.states import PromptState
from distllm.store.claims import IS_DUE, claim_one
from distllm.store.failures import fail_parents
from distllm.store.leases import Group, count_moves
from distllm.store.sql import FAILED, PENDING
from distllm.store.submissions import finish_jobs
from distllm.store.tables import jobs, prompts, refusals
from distllm.store.tx import Tx

MOST_LOOKED_AT = 50
"""How many suspects are looked at for one that a worker can take."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A prompt that waits to be asked alone, and the worker that could take it."""

    prompt_id: int
    reading_id: int
    ask: Ask


# As in the index of suspects, which is nearly always empty.
_IS_SUSPECT = (prompts.c.state == PENDING, prompts.c.losses >= literal_column(str(LOSSES_TO_SUSPECT)))
WAITING = (
    select(prompts.c.id, prompts.c.reading_id, prompts.c.tokens, prompts.c.worker_id, jobs.c.model)
    .join(jobs, jobs.c.id == prompts.c.job_id)
    .where(
        *_IS_SUSPECT,
        prompts.c.waits_for == literal_column("0"),
        IS_DUE,
        jobs.c.submitted_at.is_not(None),
        jobs.c.paused_at.is_(None),
        jobs.c.cancel_requested_at.is_(None),
    )
    .order_by(prompts.c.deaths_alone, prompts.c.id)
    .limit(MOST_LOOKED_AT)
)
_REFUSED = select(
    exists().where(refusals.c.prompt_id == bindparam("prompt"), refusals.c.worker_id == bindparam("worker"))
)


def next_suspect(tx: Tx, asks: Iterable[Ask], now: float) -> Suspect | None:
    """The next prompt to be asked alone that one of `asks` could take, and by whom: rather another than the last."""
    asks = list(asks)
    for prompt_id, reading_id, needs, last_worker, model in tx.rows(
        WAITING, {"now": now, "latest": now + LONGEST_WAIT_SECONDS}
    ):
        for ask in sorted(asks, key=lambda ask: ask.worker_id == last_worker):
            fits = needs <= ask.windows.get(model, 0)
            if fits and not tx.value(_REFUSED, {"prompt": prompt_id, "worker": ask.worker_id}):
                return Suspect(prompt_id, reading_id, ask)
    return None


def claim_suspect(tx: Tx, suspect: Suspect, me: int, now: float) -> Group | None:
    """Lease a suspect. Nothing else may be in flight, nor be leased until it has ended."""
    return claim_one(tx, suspect.ask, suspect.prompt_id, suspect.reading_id, me, now)


_CONDEMN = (
    update(prompts)
    .where(*_IS_SUSPECT, prompts.c.deaths_alone >= literal_column(str(DEATHS_TO_CONDEMN)))
    .values(state=FAILED, finished_at=bindparam("now"), error=bindparam("reason"))
    .returning(prompts.c.job_id, prompts.c.parent_id, prompts.c.part, prompts.c.parts)
)


def condemn(tx: Tx, now: float) -> int:
    """Fail what several coordinators in a row have died of, with nothing else in flight; return how many."""
    condemned = tx.rows(_CONDEMN, {"now": now, "reason": POISON})
    for job_id, parent_id, part, parts in condemned:
        count_moves(tx, job_id, int(parent_id is not None), PromptState.PENDING, PromptState.FAILED, 1)
        fail_parents(tx, parent_id, part, parts, POISON, now)
        finish_jobs(tx, [job_id], now)
    return len(condemned)
