"""Rows that nobody reads any more, found page by page in the order of their keys.

Each step is one short transaction that looks at a bounded number of rows: whoever is killed between two
steps begins anew, and finds what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Delete, Select, Table, and_, bindparam, delete, exists, or_, select

from distllm.store.sql import CANCELLED, DONE, FAILED, Column, none_of, one_of
from distllm.store.tables import (
    attempts,
    documents,
    job_documents,
    job_parts,
    jobs,
    prompts,
    readings,
    results,
    worker_metrics,
)
from distllm.store.tx import Tx, as_list


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Rows of a table of which some go: `looked` are looked at in one step, and at most `most` go in it."""

    name: str
    page: Select[tuple[int, int]]
    deletes: tuple[Delete, ...]
    looked: int
    most: int


@dataclass(frozen=True, slots=True)
class Step:
    """How many rows of a step go; the next one begins after row `after`, None once all have been looked at."""

    going: int
    after: int | None


def _sweep(table: Table, goes: Column, *before: Delete, looked: int = 2_000, most: int = 2_000) -> Sweep:
    # The rows of a page are chosen first: PostgreSQL would rather know of all rows at once whether they go.
    next_ = table.alias("next")
    chosen = select(next_.c.id).where(next_.c.id > bindparam("after")).order_by(next_.c.id).limit(bindparam("looked"))
    page = select(table.c.id, goes).where(table.c.id.in_(chosen)).order_by(table.c.id)
    return Sweep(table.name, page, (*before, delete(table).where(one_of(table.c.id, "rows"))), looked, most)


# A prompt keeps the attempt that its answer is from, or else the newest of those in which it failed. What is in
# flight is its coordinator's.
_later = attempts.alias("later")
_OLD_ATTEMPT = and_(
    attempts.c.outcome.is_not(None),
    exists()
    .where(
        prompts.c.id == attempts.c.prompt_id,
        prompts.c.state.in_([DONE, FAILED, CANCELLED]),
        or_(
            prompts.c.state != FAILED,
            exists().where(_later.c.prompt_id == attempts.c.prompt_id, _later.c.id > attempts.c.id).correlate(attempts),
        ),
        jobs.c.id == prompts.c.job_id,
        jobs.c.finished_at < bindparam("before"),
        none_of(jobs.c.id, "doomed"),
    )
    .correlate(attempts),
    ~exists().where(results.c.prompt_id == attempts.c.prompt_id, results.c.attempt_id == attempts.c.id),
)
_DOOMED_ATTEMPT = (
    exists().where(prompts.c.id == attempts.c.prompt_id, one_of(prompts.c.job_id, "doomed")).correlate(attempts)
)

# Jobs that are `doomed` need nothing. A prompt's reading is that of its job's file, except for parts, and for
# what is about no file: those have an index of their own. Parts that are planned have no prompts yet.
_NEEDED_READING = or_(
    exists().where(job_parts.c.reading_id == readings.c.id).correlate(readings),
    exists()
    .where(job_documents.c.reading_id == readings.c.id, none_of(job_documents.c.job_id, "doomed"))
    .correlate(readings),
    exists()
    .where(
        prompts.c.reading_id == readings.c.id,
        or_(prompts.c.document_id.is_(None), prompts.c.parent_id.is_not(None)),
        none_of(prompts.c.job_id, "doomed"),
    )
    .correlate(readings),
)
_UNNEEDED_DOCUMENT = and_(
    ~exists().where(job_documents.c.document_id == documents.c.id, none_of(job_documents.c.job_id, "doomed")),
    ~exists().where(readings.c.document_id == documents.c.id, _NEEDED_READING).correlate(documents),
)

OLD_ATTEMPTS = _sweep(attempts, _OLD_ATTEMPT)
DOOMED_ATTEMPTS = _sweep(attempts, _DOOMED_ATTEMPT)
SAMPLES = _sweep(worker_metrics, worker_metrics.c.at < bindparam("before"))
READINGS = _sweep(readings, ~_NEEDED_READING)
# Few at a time, since texts are long. What reads one goes with it, if that was needed when its own turn was.
DOCUMENTS = _sweep(
    documents,
    _UNNEEDED_DOCUMENT,
    delete(readings).where(one_of(readings.c.document_id, "rows")),
    looked=500,
    most=50,
)


def sweep_some(
    tx: Tx, sweep: Sweep, after: int, before: float, doomed: Sequence[int] = (), *, only_count: bool = False
) -> Step:
    """Delete those of the next rows that go, or `only_count` them as if the jobs that are `doomed` were gone.

    `before` is a time, in seconds since 1970. Safe only where SQLite does not look after references itself.
    """
    page = tx.rows(sweep.page, {"after": after, "looked": sweep.looked, "before": before, "doomed": as_list(doomed)})
    going = [row_id for row_id, goes in page if goes][: sweep.most]
    if going and not only_count:
        for statement in sweep.deletes:
            tx.run(statement, {"rows": as_list(going)})
    if len(going) == sweep.most:
        return Step(len(going), going[-1])
    return Step(len(going), page[-1][0] if len(page) == sweep.looked else None)
