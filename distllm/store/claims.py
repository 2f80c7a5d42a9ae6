"""Claims: which prompts a seat gets. A reading is given as a whole, as far as its prompts are ready."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Executable, Integer, bindparam, cast, exists, func, literal_column, or_, select, update

from distllm.domain.models import Ask
from distllm.domain.policy import LONGEST_WAIT_SECONDS, LOSSES_TO_SUSPECT
from distllm.domain.states import PromptState
from distllm.store.leases import LEASE_COLUMNS, Group, Lease, by_job, count_moves
from distllm.store.sql import LEASED, PENDING, none_of, one_of
from distllm.store.tables import documents, jobs, prompts, readings, refusals, results
from distllm.store.tx import Tx, as_list

RUNNABLE = select(jobs.c.id, jobs.c.model, jobs.c.priority, jobs.c.served_at).where(
    jobs.c.submitted_at.is_not(None),
    jobs.c.paused_at.is_(None),
    jobs.c.cancel_requested_at.is_(None),
    jobs.c.finished_at.is_(None),
    one_of(jobs.c.model, "models"),
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
# What another transaction has moved since it was chosen is pending no more.
_taken = update(prompts).where(prompts.c.state == PENDING).values(_LEASE).returning(*LEASE_COLUMNS)
TAKE = _taken.where(prompts.c.id.in_(_chosen))
_TAKE_MERGE = _taken.where(prompts.c.id.in_(_chosen_merge))
_TAKE_ONE = _taken.where(prompts.c.id == bindparam("prompt"))

# Who serves a job at the same moment says so too: nobody waits for that.
_SERVED = (
    update(jobs)
    .where(jobs.c.id.in_(select(jobs.c.id).where(jobs.c.id == bindparam("job")).with_for_update(skip_locked=True)))
    .values(served_at=bindparam("served"), started_at=func.coalesce(jobs.c.started_at, bindparam("now")))
)

_PLACED = update(readings).where(readings.c.id == bindparam("reading")).values(worker_id=bindparam("worker"))

# The few prompts that are leased at any time are looked through.
_ALL_ELSEWHERE = (
    select(prompts.c.reading_id).where(prompts.c.state == LEASED, prompts.c.holder != bindparam("me")).distinct()
)
_ELSEWHERE = (
    select(prompts.c.id)
    .where(prompts.c.state == LEASED, prompts.c.holder != bindparam("me"), prompts.c.reading_id == bindparam("reading"))
    .limit(literal_column("1"))
)

_MODELS = select(readings.c.id, readings.c.model).where(one_of(readings.c.id, "readings"))

# What a reading is: its own system message, or its part of a document.
_READINGS = (
    select(
        readings.c.id,
        readings.c.model,
        func.substr(
            documents.c.text,
            cast(readings.c.first + literal_column("1"), Integer),
            cast(readings.c.last - readings.c.first, Integer),
        ),
        readings.c.system,
    )
    .join_from(readings, documents, documents.c.id == readings.c.document_id, isouter=True)
    .where(one_of(readings.c.id, "readings"))
)
# What a merge puts together, in the order of the parts.
_BELOW = (
    select(prompts.c.parent_id, results.c.answer)
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id)
    .where(one_of(prompts.c.parent_id, "merges"))
    .order_by(prompts.c.id)
)


@dataclass(slots=True)
class _Job:
    """A job that prompts may be leased of."""

    id: int
    model: str
    priority: int
    served_at: float


def claim(tx: Tx, asks: Iterable[Ask], held: Iterable[int], me: int, now: float) -> list[Group]:
    """Lease prompts for each of `asks` that can have some, in order. `held` are the readings on other seats."""
    asks = list(asks)
    round_ = _Round(tx, me, now)
    taken = set(held)
    unserved = []
    # Every seat goes on with what it has read before any takes a new reading, so none takes another's.
    models: dict[int, str] = dict(
        tx.rows(_MODELS, {"readings": as_list({ask.reading for ask in asks if ask.reading is not None})})
    )
    for ask in asks:
        window = None if ask.reading is None else ask.windows.get(models.get(ask.reading, ""))
        if ask.reading is not None and window is not None and round_.take_more(ask, ask.reading, window):
            taken.add(ask.reading)
        else:
            unserved.append(ask)
    if unserved:
        round_.look_at_jobs({model for ask in unserved for model in ask.windows})
    for ask in unserved:
        reading_id = round_.take_new(ask, taken)
        if reading_id is not None:
            taken.add(reading_id)
    return round_.end()


def claim_one(tx: Tx, ask: Ask, prompt_id: int, reading_id: int, me: int, now: float) -> Group | None:
    """Lease this very prompt, which is ready, to the worker of `ask`."""
    round_ = _Round(tx, me, now)
    round_.take(ask, _TAKE_ONE, reading_id, prompt=prompt_id)
    return next(iter(round_.end()), None)


class _Round:
    """What one transaction leases, seat after seat; what is written of jobs and readings is written at the end."""

    def __init__(self, tx: Tx, me: int, now: float) -> None:
        self._tx = tx
        self._me = me
        self._now = now
        self._jobs: list[_Job] = []
        self._elsewhere: set[int] = set()
        self._served: dict[int, float] = {}
        self._taken: list[tuple[Ask, int, tuple[Lease, ...]]] = []

    def look_at_jobs(self, models: Iterable[str]) -> None:
        """Find the jobs whose prompts may be leased now."""
        self._jobs = [_Job(*row) for row in self._tx.rows(RUNNABLE, {"models": as_list(models)})]
        for job in self._jobs:
            job.served_at = self._served.get(job.id, job.served_at)

    def take_more(self, ask: Ask, reading_id: int, window: int) -> bool:
        """Lease more prompts of a reading, or else something to be put together about it."""
        statements = (TAKE, _TAKE_MERGE) if self._is_ours(reading_id) else (_TAKE_MERGE,)
        return any(self.take(ask, statement, reading_id, window=window) for statement in statements)

    def _is_ours(self, reading_id: int) -> bool:
        """Whether no other coordinator has a reading, nor takes it at this moment."""
        return self._tx.only_one or (
            self._tx.try_alone("reading", reading_id)
            and self._tx.value(_ELSEWHERE, {"reading": reading_id, "me": self._me}) is None
        )

    def take_new(self, ask: Ask, held: set[int]) -> int | None:
        """Lease prompts of the longest reading that fits and is not `held`; return it."""
        # Higher priority first; equal ones take turns.
        for job in sorted(self._jobs, key=lambda job: (-job.priority, job.served_at, job.id)):
            if job.model not in ask.windows:
                continue
            window = ask.windows[job.model]
            window = window if ask.longest is None else min(window, ask.longest)
            values = self._values(ask) | {"job": job.id, "window": window}
            while picked := self._pick(values, set() if ask.shared else held | self._elsewhere):
                reading_id, level = picked
                if level or ask.shared or self._is_ours(reading_id):
                    taken = self.take(ask, _TAKE_MERGE if level else TAKE, reading_id, window=window)
                    return reading_id if taken else None
                # There are as many as the seats of all others: each is found once, whoever asks.
                found = self._tx.rows(_ALL_ELSEWHERE, {"me": self._me})
                self._elsewhere.update((reading_id, *(each for (each,) in found)))
        return None

    def _pick(self, values: dict[str, Any], held: set[int]) -> tuple[int, int] | None:
        """The longest reading that is not `held`, with the level of what is asked about it."""
        rows = self._tx.rows(PICK_READING, values | {"held": as_list(sorted(held))})
        return None if not rows else (int(rows[0][0]), int(rows[0][1]))

    def take(self, ask: Ask, statement: Executable, reading_id: int, **more: Any) -> bool:
        """Lease prompts of a reading, if there are any."""
        rows = self._tx.rows(statement, self._values(ask) | {"reading": reading_id} | more)
        leases = tuple(sorted((Lease(*row) for row in rows), key=lambda lease: lease.prompt_id))
        if not leases:
            return False
        # Seats that ask at the same moment are served one after another too.
        served = self._now + len(self._taken) * 1e-6
        self._served |= {lease.job_id: served for lease in leases}
        for job in self._jobs:
            job.served_at = self._served.get(job.id, job.served_at)
        self._taken.append((ask, reading_id, leases))
        return True

    def end(self) -> list[Group]:
        """Write what is known of the jobs and readings now, and return what was leased."""
        if not self._taken:
            return []
        leases = [lease for _, _, found in self._taken for lease in found]
        for (job_id, part), count in by_job(leases).items():
            count_moves(self._tx, job_id, part, PromptState.PENDING, PromptState.LEASED, count)
        self._tx.many(
            _SERVED, [{"job": job, "now": self._now, "served": served} for job, served in self._served.items()]
        )
        self._tx.many(_PLACED, [{"reading": reading, "worker": ask.worker_id} for ask, reading, _ in self._taken])
        listed = {"readings": as_list({reading for _, reading, _ in self._taken})}
        texts = {reading: text for reading, *text in self._tx.rows(_READINGS, listed)}
        groups = []
        for ask, reading, found in self._taken:
            model, document, system = texts[reading]
            groups.append(Group(ask.worker_id, reading, model, document, system, _with_answers(self._tx, found)))
        return groups

    def _values(self, ask: Ask) -> dict[str, Any]:
        return {
            "now": self._now,
            "latest": self._now + LONGEST_WAIT_SECONDS,
            "worker": ask.worker_id,
            "left_alone_since": self._now - ask.patience,
            "count": ask.limit,
            "me": self._me,
        }


def _with_answers(tx: Tx, leases: tuple[Lease, ...]) -> tuple[Lease, ...]:
    """The same leases, each merge with what it puts together."""
    merges = [lease.prompt_id for lease in leases if lease.level]
    if not merges:
        return leases
    answers: dict[int, list[str]] = {}
    for parent_id, answer in tx.rows(_BELOW, {"merges": as_list(merges)}):
        answers.setdefault(parent_id, []).append(answer)
    return tuple(replace(each, answers=tuple(answers[each.prompt_id])) if each.level else each for each in leases)
