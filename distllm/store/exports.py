"""All that a job holds, page by page and in the order of submission.

A page is read whole before the next is asked for, so that no export keeps the write-ahead log from being
checkpointed, and none is held in memory.
"""

from collections.abc import AsyncIterator

from distllm.store.pages import failure_page
from distllm.store.reads import PAGE_ROWS, Reader, Record

ANSWER_COLUMNS = (
    *("job_id", "job", "document", "title", "prompt", "answer", "data", "model", "worker", "attempts"),
    *("finish_reason", "thinking", "proof", "prompt_tokens", "cached_tokens", "completion_tokens", "sent_tokens"),
    *("parts", "reused_from", "seconds", "finished_at"),
)
"""The columns of the view `answers`."""


async def file_pages(reader: Reader, job_id: int, rows: int = PAGE_ROWS) -> AsyncIterator[list[Record]]:
    """The files of a job: ordinal, document_id, document, title, pages, problem, same_as."""
    after = -1
    while page := await reader.rows(_FILES, job=job_id, after=after, rows=rows):
        yield page
        after = page[-1]["ordinal"]


async def prompts_of_files(reader: Reader, job_id: int, first: int, last: int) -> list[Record]:
    """The prompts about the files whose ordinals are `first` to `last`, in the order of files and questions.

    Each has `ordinal`, `prompt_id`, `state`, `error`, and the columns of `answers`, which are null without an answer.
    """
    return await reader.rows(_PROMPTS_OF_FILES, job=job_id, first=first, last=last)


async def loose_prompt_pages(reader: Reader, job_id: int) -> AsyncIterator[list[Record]]:
    """The prompts about no file, as `prompts_of_files`, each with `body`: the request that was stored."""
    after = 0
    while page := await reader.rows(_LOOSE_PROMPTS, job=job_id, after=after, rows=PAGE_ROWS):
        yield page
        after = page[-1]["prompt_id"]


async def failure_pages(reader: Reader, job_id: int) -> AsyncIterator[list[Record]]:
    """The failed prompts of a job, as `failure_page`."""
    after = 0
    while page := await failure_page(reader, job_id, after, PAGE_ROWS):
        yield page
        after = page[-1]["prompt_id"]


async def unreadable_pages(reader: Reader, job_id: int) -> AsyncIterator[list[Record]]:
    """The files of a job that could not be read: ordinal, document, problem."""
    after = -1
    while page := await reader.rows(_UNREADABLE, job=job_id, after=after, rows=PAGE_ROWS):
        yield page
        after = page[-1]["ordinal"]


_FILES = """
SELECT f.ordinal, f.document_id, f.name AS document, d.title, d.pages, d.problem,
       CASE f.copy WHEN 1 THEN (SELECT e.name FROM job_documents e
                                 WHERE e.job_id = f.job_id AND e.document_id = f.document_id AND e.copy = 0
                                 ORDER BY e.ordinal LIMIT 1) END AS same_as
  FROM job_documents f LEFT JOIN documents d ON d.id = f.document_id
 WHERE f.job_id = :job AND f.ordinal > :after ORDER BY f.ordinal LIMIT :rows
"""

# The columns of the view `answers`, which does not say which prompt a row is of and cannot be read by its key.
_ASKED = """
       p.id AS prompt_id, p.state, p.error, p.job_id, j.name AS job, d.title, t.name AS prompt, r.answer, r.data,
       r.model, w.name AS worker, (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts,
       r.finish_reason, r.thinking, r.proof, r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.sent_tokens,
       r.parts, r.reused_from, r.seconds, strftime('%Y-%m-%dT%H:%M:%SZ', r.finished_at, 'unixepoch') AS finished_at
"""

_PROMPTS_OF_FILES = f"""
SELECT f.ordinal, f.name AS document, {_ASKED}
  FROM job_documents f
  JOIN prompts p ON p.job_id = f.job_id AND p.document_id = f.document_id AND p.parent_id IS NULL
  JOIN jobs j ON j.id = p.job_id
  JOIN documents d ON d.id = p.document_id
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN results r ON r.prompt_id = p.id
  LEFT JOIN workers w ON w.id = r.worker_id
 WHERE f.job_id = :job AND f.ordinal BETWEEN :first AND :last AND f.copy = 0
 ORDER BY f.ordinal, t.ordinal, p.id
"""

_LOOSE_PROMPTS = f"""
SELECT p.body, NULL AS document, {_ASKED}
  FROM prompts p
  JOIN jobs j ON j.id = p.job_id
  LEFT JOIN documents d ON d.id = p.document_id
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN results r ON r.prompt_id = p.id
  LEFT JOIN workers w ON w.id = r.worker_id
 WHERE p.job_id = :job AND p.document_id IS NULL AND p.parent_id IS NULL AND p.id > :after
 ORDER BY p.id LIMIT :rows
"""

_UNREADABLE = """
SELECT f.ordinal, f.name AS document, d.problem FROM job_documents f JOIN documents d ON d.id = f.document_id
 WHERE f.job_id = :job AND f.reading_id IS NULL AND d.problem IS NOT NULL AND f.ordinal > :after
 ORDER BY f.ordinal LIMIT :rows
"""
