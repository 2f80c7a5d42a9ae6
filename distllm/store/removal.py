"""Whole jobs that have ended, removed in short transactions with all that is theirs alone.

Between two of them the database keeps its promises: what is left of a job is a smaller job that was
cancelled, so that nothing goes on with it, and the next removal does.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from distllm.store.reads import Reader
from distllm.store.repair import COUNTS_OF_ROWS, PART
from distllm.store.sql import COUNT, one_of
from distllm.store.tables import (
    attempts,
    batch_lines,
    batches,
    job_counters,
    job_documents,
    job_parts,
    job_readings,
    job_tokens,
    jobs,
    prompts,
    refusals,
    results,
    templates,
)
from distllm.store.tx import Tx, as_list

CHUNK_PROMPTS = 500
CHUNK_FILES = 5_000


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended, with how many prompts and answers it has; parts are counted too."""

    job_id: int
    prompts: int
    answers: int


_ENDED = """
SELECT j.id, coalesce(sum(c.pending + c.leased + c.done + c.failed + c.cancelled), 0) AS prompts,
       coalesce(sum(c.done), 0) AS answers
  FROM jobs j LEFT JOIN job_counters c ON c.job_id = j.id
 WHERE j.finished_at < :before AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.job_id = j.id AND b.ended_at IS NULL)
 GROUP BY j.id ORDER BY j.id
"""


async def ended_jobs(reader: Reader, before: float) -> list[EndedJob]:
    """The jobs that ended before a time, in seconds since 1970; not those whose batch has still to tell its results."""
    return [EndedJob(row["id"], row["prompts"], row["answers"]) for row in await reader.rows(_ENDED, before=before)]


_THE_JOB = jobs.c.id == bindparam("job")
# Nobody retries, resumes or finds again by its key what has begun to go.
_MARK = (
    update(jobs)
    .where(_THE_JOB, jobs.c.finished_at < bindparam("before"))
    .values(cancel_requested_at=func.coalesce(jobs.c.cancel_requested_at, jobs.c.finished_at), submit_key=None)
)

# Prompts with all their parts, since one that waits for parts counts them.
_whole = (
    select(prompts.c.id)
    .where(prompts.c.job_id == bindparam("job"), prompts.c.parent_id.is_(None))
    .limit(bindparam("count"))
    .subquery()
)
_family = select(_whole.c.id).cte("family", recursive=True)
_part = prompts.alias("part")
_family = _family.union_all(select(_part.c.id).join_from(_family, _part, _part.c.parent_id == _family.c.id))
_FAMILIES = select(_family.c.id)

_COUNTS = (
    select(PART, *COUNTS_OF_ROWS.values())
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id, isouter=True)
    .where(one_of(prompts.c.id, "prompts"))
    .group_by(PART)
)
_ABOUT_PROMPTS = (results, attempts, refusals, batch_lines)
_OF_PROMPTS = [delete(table).where(one_of(table.c.prompt_id, "prompts")) for table in _ABOUT_PROMPTS]
# A reading may go once no prompt needs it.
_READINGS = delete(job_readings).where(
    job_readings.c.job_id == bindparam("job"),
    job_readings.c.reading_id.in_(select(prompts.c.reading_id).where(one_of(prompts.c.id, "prompts"))),
)
_PROMPTS = delete(prompts).where(one_of(prompts.c.id, "prompts"))

_file = job_documents.alias("file")
_FILES = delete(job_documents).where(
    job_documents.c.job_id == bindparam("job"),
    job_documents.c.ordinal.in_(
        select(_file.c.ordinal)
        .where(_file.c.job_id == bindparam("job"))
        .order_by(_file.c.ordinal)
        .limit(bindparam("files"))
    ),
)
# What is left of its batch are lines that were never asked, and what it ended with.
_LINES = delete(batch_lines).where(
    batch_lines.c.batch_id.in_(select(batches.c.id).where(batches.c.job_id == bindparam("job")))
)
_BATCH = update(batches).where(batches.c.job_id == bindparam("job")).values(job_id=None)
_TABLES_OF_JOB = (templates, job_counters, job_tokens, job_parts)
_OF_JOB = [_LINES, _BATCH, *(delete(table).where(table.c.job_id == bindparam("job")) for table in _TABLES_OF_JOB)]
_JOB = delete(jobs).where(_THE_JOB)


def remove_some(tx: Tx, job_id: int, before: float) -> Counter[str] | None:
    """Remove the next rows of a job that ended before a time; count them by table. None once nothing is left of it.

    Also where it has not ended: then it is left alone. Safe only where SQLite does not look after references itself.
    """
    values: dict[str, Any] = {"job": job_id, "before": before, "count": CHUNK_PROMPTS, "files": CHUNK_FILES}
    if not tx.run(_MARK, values):
        return None
    ids = [prompt_id for (prompt_id,) in tx.rows(_FAMILIES, values)]
    if ids:
        return _remove_prompts(tx, job_id, ids)
    if tx.run(_FILES, values):
        return Counter()
    for statement in _OF_JOB:
        tx.run(statement, values)
    return Counter(jobs=tx.run(_JOB, values))


def _remove_prompts(tx: Tx, job_id: int, ids: Sequence[int]) -> Counter[str]:
    values = {"job": job_id, "prompts": as_list(ids)}
    for part, *counts in tx.rows(_COUNTS, values):
        less = {name: -number for name, number in zip(COUNTS_OF_ROWS, counts, strict=True)}
        tx.run(COUNT, {"job_id": job_id, "coordinator_id": tx.counters, "part": part} | less)
    tx.run(_READINGS, values)
    answers, tries, *_ = (tx.run(statement, values) for statement in _OF_PROMPTS)
    return Counter(prompts=tx.run(_PROMPTS, values), results=answers, attempts=tries)
