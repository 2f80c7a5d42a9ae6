"""Jobs and what was asked in them, a page at a time: for those who are far away and cannot hold all of it."""

import json
from collections.abc import Iterable

from distllm.store.reads import FAILED, Reader, Record

Place = tuple[int, int]
"""Where in a job a prompt stands: the number of its file, and its id. Pages follow one another by it."""

START: Place = (-1, 0)


async def job_page(reader: Reader, before: int, limit: int, state: str | None) -> list[Record]:
    """The newest jobs whose ids are below `before`, newest first, as `Reader.jobs` gives them."""
    return await reader.rows(_JOBS, before=before, limit=limit, state=state)


async def lively_jobs(reader: Reader, known: Iterable[int], last: int) -> list[Record]:
    """The jobs that have not ended, those that are `known`, and those whose ids are above `last`, by id."""
    return await reader.rows(_LIVELY, known=json.dumps(list(known)), last=last)


async def answer_page(
    reader: Reader,
    job_id: int,
    after: Place,
    limit: int,
    *,
    document: str | None,
    prompt: str | None,
    state: str | None,
) -> list[Record]:
    """The prompts of a job that follow the one at `after`, in the order of submission, each with what came of it.

    Each has `ordinal` and `prompt_id`, which are its place.
    """
    values = {"job": job_id, "ordinal": after[0], "after": after[1], "limit": limit, "state": state}
    rows = await reader.rows(_ANSWERS, **values, document=document, prompt=prompt)
    if rows or document is not None or prompt is not None:
        return rows
    # Those of a batch are about no file.
    return await reader.rows(_BATCH_ANSWERS, **values)


async def failure_page(reader: Reader, job_id: int, after: int, limit: int) -> list[Record]:
    """The failed prompts of a job that follow prompt `after`: prompt_id, and the columns of the view `failures`."""
    return await reader.rows(_FAILURES, job=job_id, after=after, limit=limit)


async def model_of_key(reader: Reader, key: str) -> str | None:
    """The model of the job that was made with a key; None if there is no such job."""
    row = await reader.row("SELECT model FROM jobs WHERE submit_key = :key", key=key)
    return None if row is None else str(row["model"])


_JOBS = """
SELECT v.*, j.model, j.preset, j.submitted_at IS NOT NULL AS submitted
  FROM job_progress v JOIN jobs j ON j.id = v.job_id
 WHERE v.job_id < :before AND (v.state = :state OR :state IS NULL) ORDER BY v.job_id DESC LIMIT :limit
"""

# What has ended does not change: of ten thousand jobs, few are looked at.
_LIVELY = """
SELECT v.*, j.model, j.preset, j.submitted_at IS NOT NULL AS submitted
  FROM job_progress v JOIN jobs j ON j.id = v.job_id
 WHERE j.finished_at IS NULL OR j.id > :last OR j.id IN (SELECT CAST(value AS BIGINT) FROM json_each(:known))
 ORDER BY j.id
"""

_ASKED = """
       p.id AS prompt_id, p.state, p.error, r.answer, r.data, r.model, w.name AS worker,
       (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts, r.finish_reason, r.thinking, r.proof,
       r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.parts, r.reused_from, r.seconds,
       strftime('%Y-%m-%dT%H:%M:%SZ', coalesce(r.finished_at, p.finished_at), 'unixepoch') AS finished_at
"""

# CROSS keeps the order of the tables: files by their key, and the prompts of each by its index, so that a page costs
# the same wherever in a job it is.
_ANSWERS = f"""
SELECT f.ordinal, f.name AS document, d.title, t.name AS prompt, {_ASKED}
  FROM job_documents f
 CROSS JOIN prompts p ON p.job_id = f.job_id AND p.document_id = f.document_id
  LEFT JOIN documents d ON d.id = p.document_id
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN results r ON r.prompt_id = p.id
  LEFT JOIN workers w ON w.id = coalesce(r.worker_id, p.worker_id)
 WHERE f.job_id = :job AND f.copy = 0 AND f.ordinal >= :ordinal AND p.parent_id IS NULL
   AND (f.ordinal > :ordinal OR p.id > :after)
   AND (f.name = :document OR :document IS NULL) AND (t.name = :prompt OR :prompt IS NULL)
   AND (p.state = :state OR :state IS NULL)
 ORDER BY f.ordinal, p.id LIMIT :limit
"""

_BATCH_ANSWERS = f"""
SELECT -1 AS ordinal, NULL AS document, NULL AS title, NULL AS prompt, {_ASKED}
  FROM prompts p
  LEFT JOIN results r ON r.prompt_id = p.id
  LEFT JOIN workers w ON w.id = coalesce(r.worker_id, p.worker_id)
 WHERE p.job_id = :job AND p.document_id IS NULL AND p.parent_id IS NULL AND p.id > :after
   AND :ordinal = -1 AND (p.state = :state OR :state IS NULL)
 ORDER BY p.id LIMIT :limit
"""

_FAILURES = f"""
SELECT p.id AS prompt_id, {FAILED}
 WHERE p.job_id = :job AND p.state = 'failed' AND p.parent_id IS NULL AND p.id > :after
 ORDER BY p.id LIMIT :limit
"""
