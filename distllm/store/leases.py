"""Leases: who may send a prompt. The fence is the lease number, which only a claim raises."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from distllm.domain.models import Ask
from distllm.domain.policy import BACKOFF_SECONDS, LONGEST_WAIT_SECONDS, LOSSES_TO_SUSPECT, is_suspect
from distllm.domain.states import PromptState
from distllm.store.sql import COUNT, LEASED, NOTHING_COUNTED, PENDING, none_of, one_of
from distllm.store.sqlite import Tx, as_list
from distllm.store.tables import attempts, coordinators, documents, jobs, prompts, readings, refusals, results

SQLITE_COUNTERS = 0
"""On SQLite one coordinator at a time moves prompts, so all share one row of counters a job."""


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


# Higher priority first; equal ones take turns, by when they were served last.
RUNNABLE = (
    select(jobs.c.id, jobs.c.model)
    .where(
        jobs.c.submitted_at.is_not(None),
        jobs.c.paused_at.is_(None),
        jobs.c.cancel_requested_at.is_(None),
        jobs.c.finished_at.is_(None),
        one_of(jobs.c.model, "models"),
    )
    .order_by(jobs.c.priority.desc(), jobs.c.served_at, jobs.c.id)
)

# No wait is longer than the longest backoff: what is due later than that was written before the clock was set back.
_CLOCK_SET_BACK = prompts.c.available_at > bindparam("latest")
IS_DUE = or_(prompts.c.available_at <= bindparam("now"), _CLOCK_SET_BACK)
_READY = (
    prompts.c.state == PENDING,
    prompts.c.waits_for == literal_column("0"),
    prompts.c.losses < literal_column(str(LOSSES_TO_SUSPECT)),
    IS_DUE,
    prompts.c.tokens <= bindparam("window"),
    or_(
        prompts.c.failures == literal_column("0"),
        prompts.c.worker_id != bindparam("worker"),
        prompts.c.available_at <= bindparam("left_alone_since"),
        _CLOCK_SET_BACK,
    ),
    ~exists().where(refusals.c.prompt_id == prompts.c.id, refusals.c.worker_id == bindparam("worker")),
)

# The longest reading that fits, found by the partial index alone; a separate statement from the jobs, since
# a join would sort the whole backlog on PostgreSQL. Merges read nothing that another seat has read.
_IS_MERGE = prompts.c.level > literal_column("0")
PICK_READING = (
    select(prompts.c.reading_id, prompts.c.level)
    .where(
        prompts.c.job_id == bindparam("job"),
        *_READY,
        or_(none_of(prompts.c.reading_id, "held"), _IS_MERGE),
    )
    .order_by(prompts.c.tokens.desc(), prompts.c.reading_id)
    .limit(1)
)

_LEASE_COLUMNS = (
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

_ready_of_reading = (
    select(prompts.c.id)
    .join(jobs, jobs.c.id == prompts.c.job_id)
    .where(
        prompts.c.reading_id == bindparam("reading"),
        *_READY,
        jobs.c.submitted_at.is_not(None),
        jobs.c.paused_at.is_(None),
        jobs.c.cancel_requested_at.is_(None),
    )
    .order_by(jobs.c.priority.desc(), prompts.c.id)
)
# All jobs' ready prompts of one reading go to the seat that reads it; but merges one by one to whoever is free.
_chosen = _ready_of_reading.where(~_IS_MERGE).limit(bindparam("count"))
_chosen_merge = _ready_of_reading.where(_IS_MERGE).limit(literal_column("1"))
_LEASE = {
    "state": LEASED,
    "lease": prompts.c.lease + literal_column("1"),
    "holder": bindparam("me"),
    "worker_id": bindparam("worker"),
}
TAKE = update(prompts).where(prompts.c.id.in_(_chosen)).values(_LEASE).returning(*_LEASE_COLUMNS)
_TAKE_MERGE = update(prompts).where(prompts.c.id.in_(_chosen_merge)).values(_LEASE).returning(*_LEASE_COLUMNS)
_TAKE_ONE = update(prompts).where(prompts.c.id == bindparam("prompt")).values(_LEASE).returning(*_LEASE_COLUMNS)

_SERVED = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(served_at=bindparam("served"), started_at=func.coalesce(jobs.c.started_at, bindparam("now")))
)

_PLACED = update(readings).where(readings.c.id == bindparam("reading")).values(worker_id=bindparam("worker"))

# What a reading is: its own system message, or its part of a document.
_READING = (
    select(
        readings.c.model,
        func.substr(documents.c.text, readings.c.first + literal_column("1"), readings.c.last - readings.c.first),
        readings.c.system,
    )
    .join_from(readings, documents, documents.c.id == readings.c.document_id, isouter=True)
    .where(readings.c.id == bindparam("reading"))
)
# What a merge puts together, in the order of the parts.
_BELOW = (
    select(prompts.c.parent_id, results.c.answer)
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id)
    .where(one_of(prompts.c.parent_id, "merges"))
    .order_by(prompts.c.id)
)
_READING_MODEL = select(readings.c.model).where(readings.c.id == bindparam("reading"))


def claim(tx: Tx, asks: Iterable[Ask], held: Iterable[int], me: int, now: float) -> list[Group]:
    """Lease prompts for each of `asks` that can have some, in order. `held` are the readings on other seats."""
    taken = set(held)
    groups: list[Group] = []
    unserved = []
    # Every seat goes on with what it has read before any takes a new reading, so none takes another's.
    for ask in asks:
        group = None if ask.reading is None else _claim_more(tx, ask, ask.reading, me, now, len(groups))
        if group is None:
            unserved.append(ask)
        else:
            taken.add(group.reading_id)
            groups.append(group)
    for ask in unserved:
        group = _claim_new(tx, ask, taken, me, now, len(groups))
        if group is not None:
            taken.add(group.reading_id)
            groups.append(group)
    return groups


def _claim_more(tx: Tx, ask: Ask, reading_id: int, me: int, now: float, turn: int) -> Group | None:
    window = ask.windows.get(tx.value(_READING_MODEL, {"reading": reading_id}))
    if window is None:
        return None
    values = _values(ask, me, now, turn) | {"window": window}
    return _take(tx, TAKE, reading_id, values) or _take(tx, _TAKE_MERGE, reading_id, values)


def claim_one(tx: Tx, ask: Ask, prompt_id: int, reading_id: int, me: int, now: float) -> Group | None:
    """Lease this very prompt, which is ready, to the worker of `ask`."""
    return _take(tx, _TAKE_ONE, reading_id, _values(ask, me, now, 0) | {"prompt": prompt_id})


def _claim_new(tx: Tx, ask: Ask, held: set[int], me: int, now: float, turn: int) -> Group | None:
    values = _values(ask, me, now, turn) | {"held": as_list(() if ask.shared else sorted(held))}
    for job_id, model in tx.rows(RUNNABLE, {"models": as_list(ask.windows)}):
        window = ask.windows[model]
        values["window"] = window if ask.longest is None else min(window, ask.longest)
        for reading_id, level in tx.rows(PICK_READING, values | {"job": job_id}):
            return _take(tx, _TAKE_MERGE if level else TAKE, reading_id, values)
    return None


def _values(ask: Ask, me: int, now: float, turn: int) -> dict[str, Any]:
    return {
        "now": now,
        "latest": now + LONGEST_WAIT_SECONDS,
        # Seats that ask at the same moment are served one after another too.
        "served": now + turn * 1e-6,
        "worker": ask.worker_id,
        "left_alone_since": now - ask.patience,
        "count": ask.limit,
        "me": me,
    }


def _take(tx: Tx, statement: Executable, reading_id: int, values: dict[str, Any]) -> Group | None:
    values = values | {"reading": reading_id}
    leases = tuple(sorted((Lease(*row) for row in tx.rows(statement, values)), key=lambda lease: lease.prompt_id))
    if not leases:
        return None
    for (job_id, part), count in _by_job(leases).items():
        tx.run(_SERVED, {"job": job_id, "now": values["now"], "served": values["served"]})
        count_moves(tx, job_id, part, PromptState.PENDING, PromptState.LEASED, count)
    tx.run(_PLACED, values)
    model, document, system = tx.rows(_READING, values)[0]
    return Group(values["worker"], reading_id, model, document, system, _with_answers(tx, leases))


def _with_answers(tx: Tx, leases: tuple[Lease, ...]) -> tuple[Lease, ...]:
    """The same leases, each merge with what it puts together."""
    merges = [lease.prompt_id for lease in leases if lease.level]
    if not merges:
        return leases
    answers: dict[int, list[str]] = {}
    for parent_id, answer in tx.rows(_BELOW, {"merges": as_list(merges)}):
        answers.setdefault(parent_id, []).append(answer)
    return tuple(replace(each, answers=tuple(answers[each.prompt_id])) if each.level else each for each in leases)


def _by_job(leases: Iterable[Lease]) -> dict[tuple[int, int], int]:
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
    tx.run(COUNT, NOTHING_COUNTED | {"job_id": job_id, "coordinator_id": SQLITE_COUNTERS, "part": part} | more)


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
    for (job_id, part), count in _by_job(released).items():
        count_moves(tx, job_id, part, PromptState.LEASED, PromptState.PENDING, count)


# Whoever held the coordinator's lock before is dead, so every lease but ours has lost its holder. Only what was in
# flight can have had a part in that; and a suspect was in flight alone. It waits longer each time, so that whatever
# else there is to die of has its chance without it.
_IN_FLIGHT = exists().where(
    attempts.c.prompt_id == prompts.c.id, attempts.c.lease == prompts.c.lease, attempts.c.outcome.is_(None)
)
_SUSPECT = prompts.c.losses >= literal_column(str(LOSSES_TO_SUSPECT))
_DIED_ALONE = and_(_SUSPECT, _IN_FLIGHT)
_WAIT: ColumnElement[float] = literal_column(str(BACKOFF_SECONDS)) * literal_column("1").bitwise_lshift(
    prompts.c.deaths_alone + literal_column("1")
)
_RECLAIM = (
    update(prompts)
    .where(prompts.c.state == LEASED, prompts.c.holder != bindparam("me"))
    .values(
        state=PENDING,
        holder=None,
        available_at=bindparam("now") + case((_DIED_ALONE, _WAIT), else_=literal_column("0")),
        losses=prompts.c.losses + case((_IN_FLIGHT, literal_column("1")), else_=literal_column("0")),
        deaths_alone=prompts.c.deaths_alone + case((_DIED_ALONE, literal_column("1")), else_=literal_column("0")),
    )
    .returning(prompts.c.job_id, prompts.c.parent_id, prompts.c.available_at)
)
_PREDECESSOR_DIED = (
    select(coordinators.c.ended_at.is_(None))
    .where(coordinators.c.id < bindparam("me"))
    .order_by(coordinators.c.id.desc())
    .limit(literal_column("1"))
)

# Somebody went down without them: then it need not be their doing that others did.
ALIBI = update(prompts).where(prompts.c.state == PENDING, _SUSPECT).values(deaths_alone=literal_column("0"))

_LOST = (
    update(attempts)
    .where(attempts.c.outcome.is_(None), attempts.c.coordinator_id != bindparam("me"))
    .values(outcome="lost", finished_at=bindparam("now"))
)


def reclaim(tx: Tx, me: int, now: float) -> int:
    """Take back all leases of dead coordinators; return how many. Safe only under the coordinator's lock."""
    lost = tx.rows(_RECLAIM, {"me": me, "now": now})
    for (job_id, part), count in Counter((job_id, int(parent is not None)) for job_id, parent, _ in lost).items():
        count_moves(tx, job_id, part, PromptState.LEASED, PromptState.PENDING, count)
    died_alone = any(due > now for _, _, due in lost)
    if not died_alone and tx.value(_PREDECESSOR_DIED, {"me": me}):
        tx.run(ALIBI, {})
    tx.run(_LOST, {"me": me, "now": now})
    return len(lost)


_HELD = select(*_LEASE_COLUMNS).where(prompts.c.state == LEASED, prompts.c.holder == bindparam("me"))


def release_strangers(tx: Tx, me: int, known: set[tuple[int, int]]) -> None:
    """Give back the leases of coordinator `me` that are not `known` to it, as (prompt, number)."""
    held = [Lease(*row) for row in tx.rows(_HELD, {"me": me})]
    release(tx, [lease for lease in held if lease.key not in known])
