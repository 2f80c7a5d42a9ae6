"""Leases: who may send a prompt, until when. The fence is the lease number, which only a claim raises."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    cast,
    exists,
    literal_column,
    select,
    update,
)

from distllm.domain.policy import BACKOFF_SECONDS, LOSSES_TO_SUSPECT, is_suspect
from distllm.domain.states import PromptState
from distllm.store.sql import COUNT, LEASED, NOTHING_COUNTED, PENDING
from distllm.store.tables import attempts, coordinators, prompts
from distllm.store.tx import Tx


@dataclass(frozen=True, slots=True)
class Lease:
    """One leased prompt: the coordinator may send it and settle it while `number` is its newest lease.

    It asks what its template says, or its own stored request, `body`. `needs` is the context window in tokens
    that it takes. `max_tokens` bounds its answer, None leaves that to what it asks. What happened to it before is
    told by `failures`, `losses` and `deaths_alone` (see `domain.policy.verdict`). At `level` 0 it asks about a text,
    of a long document `part` of `parts`; above, it puts `answers` together, those of the level below in their order.
    """

    prompt_id: int
    number: int
    job_id: int
    reading_id: int
    template_id: int | None
    parent_id: int | None
    failures: int
    losses: int
    deaths_alone: int
    needs: int
    max_tokens: int | None
    body: str | None = None
    level: int = 0
    part: int | None = None
    parts: int | None = None
    answers: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[int, int]:
        """What tells a lease from every other: its prompt and its number."""
        return self.prompt_id, self.number

    @property
    def alone(self) -> bool:
        """Whether nothing else may be in flight with it, since it may be what brings servers down."""
        return is_suspect(self.losses)


@dataclass(frozen=True, slots=True)
class Group:
    """The leased prompts of one reading for one worker.

    `model` is what the jobs call it; `document` is the text that they are about, or else `system` is the
    whole system message. Merges among them need neither.
    """

    worker_id: int
    reading_id: int
    model: str
    document: str | None
    system: str | None
    leases: tuple[Lease, ...]


LEASE_COLUMNS = (
    prompts.c.id,
    prompts.c.lease,
    prompts.c.job_id,
    prompts.c.reading_id,
    prompts.c.template_id,
    prompts.c.parent_id,
    prompts.c.failures,
    prompts.c.losses,
    prompts.c.deaths_alone,
    prompts.c.tokens,
    prompts.c.max_tokens,
    prompts.c.body,
    prompts.c.level,
    prompts.c.part,
    prompts.c.parts,
)


def by_job(leases: Iterable[Lease]) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for lease in leases:
        key = (lease.job_id, int(lease.parent_id is not None))
        counts[key] = counts.get(key, 0) + 1
    return counts


def count_moves(
    tx: Tx, job_id: int, part: int, source: PromptState, target: PromptState, count: int, **more: int
) -> None:
    """Move `count` prompts of a job from one counter to another, and add `more` to the others named."""
    if source != target:
        more |= {source.value: -count, target.value: count}
    tx.run(COUNT, NOTHING_COUNTED | {"job_id": job_id, "coordinator_id": tx.counters, "part": part} | more)


# A prompt that was pruned leaves its id to another, of another job: a job's id is never given again.
OF_LEASE = (prompts.c.id == bindparam("prompt"), prompts.c.job_id == bindparam("job"))
OURS = (*OF_LEASE, prompts.c.lease == bindparam("number"))


def fence(lease: Lease) -> dict[str, int]:
    """The values that a statement guarded by `OURS` takes."""
    return {"prompt": lease.prompt_id, "job": lease.job_id, "number": lease.number}


# What was leased and not sent goes back without a charge; a lease that is no longer ours does not.
_RELEASE = update(prompts).where(*OURS, prompts.c.state == LEASED).values(state=PENDING, holder=None)


def release(tx: Tx, leases: Sequence[Lease]) -> None:
    """Give back leases that have not been sent."""
    released = [lease for lease in leases if tx.run(_RELEASE, fence(lease))]
    for (job_id, part), count in by_job(released).items():
        count_moves(tx, job_id, part, PromptState.LEASED, PromptState.PENDING, count)


# What the dead held has lost its holder. Only what was in flight can have had a part in that; and a suspect was in
# flight alone. It waits longer each time, so that whatever else there is to die of has its chance without it.
_IN_FLIGHT = exists().where(
    attempts.c.prompt_id == prompts.c.id, attempts.c.lease == prompts.c.lease, attempts.c.outcome.is_(None)
)
_SUSPECT = prompts.c.losses >= literal_column(str(LOSSES_TO_SUSPECT))
_DIED_ALONE = and_(_SUSPECT, _IN_FLIGHT)
_WAIT: ColumnElement[float] = literal_column(str(BACKOFF_SECONDS)) * literal_column("1").bitwise_lshift(
    cast(prompts.c.deaths_alone + literal_column("1"), Integer)
)
_ENDED = select(coordinators.c.id).where(coordinators.c.ended_at.is_not(None))
_RECLAIM = (
    update(prompts)
    .where(prompts.c.state == LEASED, prompts.c.holder.in_(_ENDED))
    .values(
        state=PENDING,
        holder=None,
        available_at=bindparam("now") + case((_DIED_ALONE, _WAIT), else_=literal_column("0")),
        losses=prompts.c.losses + case((_IN_FLIGHT, literal_column("1")), else_=literal_column("0")),
        deaths_alone=prompts.c.deaths_alone + case((_DIED_ALONE, literal_column("1")), else_=literal_column("0")),
    )
    .returning(prompts.c.job_id, prompts.c.parent_id, prompts.c.available_at)
)
_BURY = (
    update(coordinators)
    .where(coordinators.c.ended_at.is_(None), coordinators.c.id != bindparam("me"))
    .values(ended_at=bindparam("now"))
)

# Somebody went down without them: then it need not be their doing that others did.
ALIBI = update(prompts).where(prompts.c.state == PENDING, _SUSPECT).values(deaths_alone=literal_column("0"))

_LOST = (
    update(attempts)
    .where(attempts.c.outcome.is_(None), attempts.c.coordinator_id.in_(_ENDED))
    .values(outcome="lost", finished_at=bindparam("now"))
)


def reclaim(tx: Tx, me: int, now: float) -> int:
    """Take back the leases of all coordinators but `me`; return how many.

    Safe only under the coordinator's lock, which proves them dead.
    """
    return take_back(tx, now, died=tx.run(_BURY, {"me": me, "now": now}) > 0)


def take_back(tx: Tx, now: float, *, died: bool) -> int:
    """Take back all leases of coordinators that have ended; return how many.

    `died` if one of them has just been found dead, which had not said so itself.
    """
    lost = tx.rows(_RECLAIM, {"now": now})
    for (job_id, part), count in Counter((job_id, int(parent is not None)) for job_id, parent, _ in lost).items():
        count_moves(tx, job_id, part, PromptState.LEASED, PromptState.PENDING, count)
    died_alone = any(due > now for _, _, due in lost)
    if died and not died_alone:
        tx.run(ALIBI, {})
    tx.run(_LOST, {"now": now})
    return len(lost)


_HELD = select(*LEASE_COLUMNS).where(prompts.c.state == LEASED, prompts.c.holder == bindparam("me"))


def release_strangers(tx: Tx, me: int, known: set[tuple[int, int]]) -> None:
    """Give back the leases of coordinator `me` that are not `known` to it, as (prompt, number)."""
    held = [Lease(*row) for row in tx.rows(_HELD, {"me": me})]
    release(tx, [lease for lease in held if lease.key not in known])
