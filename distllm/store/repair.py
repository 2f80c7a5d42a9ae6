"""Mending what `checkup` finds repairable, while no coordinator is live."""

from dataclasses import dataclass

from sqlalchemy import bindparam, case, delete, exists, func, insert, literal_column, select, text, update

from distllm.domain.states import PromptState
from distllm.store.leases import reclaim
from distllm.store.sql import DONE, LEASED, PENDING, word
from distllm.store.submissions import finish_jobs
from distllm.store.tables import attempts, job_counters, jobs, prompts, results
from distllm.store.tx import Tx

NOBODY = 0
"""No coordinator has this id, so whatever is leased is leased by another."""


class LiveError(Exception):
    """A coordinator works the database: the process `pid`, perhaps of another machine."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} works the database")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Repaired:
    """How much was mended: leases given back, attempts that nobody waits for ended, counts of parts set right.

    And the jobs that go on or have ended since.
    """

    leases: int
    attempts: int
    waiting: int
    reopened: int
    ended: int


# No coordinator begins, and nothing else is moved, before all is mended.
_HOLD = text("LOCK TABLE coordinators, jobs, prompts, attempts, results, job_counters IN SHARE ROW EXCLUSIVE MODE")
LIVE = text(
    "SELECT pid FROM coordinators WHERE ended_at IS NULL AND alive_until > extract(epoch FROM clock_timestamp()) "
    "ORDER BY id"
)
"""The processes that work a database on PostgreSQL."""

_FORGET = delete(job_counters)
PART = case((prompts.c.parent_id.is_(None), literal_column("0")), else_=literal_column("1"))
_of_states = {state.value: func.count().filter(prompts.c.state == word(state)) for state in PromptState}
# What an answer cost the job that asked it first has cost this one nothing.
_of_tokens = {
    name: func.coalesce(func.sum(results.c[name]).filter(results.c.reused_from.is_(None)), literal_column("0"))
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
}
_of_answers = {
    "truncated": func.count().filter(results.c.finish_reason == literal_column("'length'")),
    "unproven": func.count().filter(results.c.proof == literal_column("'unproven'")),
    "reused": func.count(results.c.reused_from),
}
COUNTS_OF_ROWS = _of_states | _of_tokens | _of_answers
"""The counters as they are counted from prompts joined with their results, if any."""
_COUNT_ALL = insert(job_counters).from_select(
    ["job_id", "coordinator_id", "part", *COUNTS_OF_ROWS],
    select(prompts.c.job_id, bindparam("counters"), PART, *COUNTS_OF_ROWS.values())
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id, isouter=True)
    .group_by(prompts.c.job_id, PART),
)

_OPEN_ATTEMPTS = select(func.count()).select_from(attempts).where(attempts.c.outcome.is_(None))

# What waits for parts waits for as many as are unfinished.
_part_of = prompts.alias("part")
_unfinished = (
    select(func.count())
    .where(_part_of.c.parent_id == prompts.c.id, _part_of.c.state != DONE)
    .correlate(prompts)
    .scalar_subquery()
)
_WAIT_RIGHTLY = update(prompts).where(prompts.c.waits_for != _unfinished).values(waits_for=_unfinished)

# A job that has something left to ask goes on.
_REOPEN = (
    update(jobs)
    .where(
        jobs.c.finished_at.is_not(None),
        exists().where(prompts.c.job_id == jobs.c.id, prompts.c.state.in_([PENDING, LEASED])),
    )
    .values(finished_at=None)
)
_OPEN = select(jobs.c.id).where(jobs.c.finished_at.is_(None), jobs.c.submitted_at.is_not(None))


def repair(tx: Tx, now: float) -> Repaired:
    """Give back all leases, count anew, and end or reopen jobs by what is left of them.

    Safe only under the coordinator's lock; where there may be several, raises LiveError if there is one.
    """
    if not tx.only_one:
        tx.run(_HOLD, {})
        pid = tx.value(LIVE, {})
        if pid is not None:
            raise LiveError(pid)
    open_attempts = tx.value(_OPEN_ATTEMPTS, {})
    leases = reclaim(tx, NOBODY, now)
    waiting = tx.run(_WAIT_RIGHTLY, {})
    tx.run(_FORGET, {})
    tx.run(_COUNT_ALL, {"counters": tx.counters})
    reopened = tx.run(_REOPEN, {})
    ended = finish_jobs(tx, [job_id for (job_id,) in tx.rows(_OPEN, {})], now)
    return Repaired(leases, open_attempts, waiting, reopened, ended)
