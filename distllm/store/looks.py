"""What a page shows of a job: a few files with how their prompts stand, and one prompt with all that is known of it."""

import json
from collections.abc import Sequence

from distllm.store.reads import Reader, Record

NEWEST_ATTEMPTS = 50
EXCERPT_CHARACTERS = 160


async def files_after(reader: Reader, job_id: int, ordinal: int, limit: int, named: str) -> list[Record]:
    """The files of a job that follow the one at `ordinal` and have `named` in their names or titles.

    Each is ordinal, document_id, document, title, problem and copy, in the order of submission.
    """
    return await reader.rows(_FILES_AFTER, job=job_id, ordinal=ordinal, limit=limit, named=named)


async def files_before(reader: Reader, job_id: int, ordinal: int, limit: int, named: str) -> list[Record]:
    """The same for the files just before the one at `ordinal`, in the order of submission."""
    rows = await reader.rows(_FILES_BEFORE, job=job_id, ordinal=ordinal, limit=limit, named=named)
    return rows[::-1]


async def cells(reader: Reader, job_id: int, documents: Sequence[int]) -> list[Record]:
    """The prompts of a job about `documents`: prompt_id, document_id, template_id, state, finish_reason, excerpt."""
    values = {"job": job_id, "documents": json.dumps(list(documents)), "length": EXCERPT_CHARACTERS}
    return await reader.rows(_CELLS, **values)


async def loose_cells(reader: Reader, job_id: int, after: int, limit: int) -> list[Record]:
    """The prompts about no document that follow prompt `after`, as `cells`, with `body`."""
    return await reader.rows(_LOOSE_CELLS, job=job_id, after=after, limit=limit, length=EXCERPT_CHARACTERS)


async def file_of(reader: Reader, job_id: int, ordinal: int) -> Record | None:
    """One file of a job, as `files_after`, with pages and characters."""
    return await reader.row(_FILE, job=job_id, ordinal=ordinal)


async def text_of(reader: Reader, job_id: int, ordinal: int, first: int, length: int) -> str | None:
    """So many characters of what was read of a file, from the one at `first`; None without any such file."""
    row = await reader.row(_TEXT, job=job_id, ordinal=ordinal, first=first + 1, length=length)
    return None if row is None else str(row["text"])


async def answer_of(reader: Reader, job_id: int, prompt_id: int) -> Record | None:
    """One prompt of a job with what was asked, about which file, and what came of it; None if there is none."""
    return await reader.row(_ANSWER, job=job_id, prompt=prompt_id)


async def answers_about(reader: Reader, job_id: int, document_id: int) -> list[Record]:
    """All prompts of a job about one document, in the order of its questions, as `answer_of`."""
    return await reader.rows(_ANSWERS_ABOUT, job=job_id, document=document_id)


async def attempts_of(reader: Reader, prompt_id: int) -> list[Record]:
    """The newest attempts at a prompt, newest first: worker, at, outcome, error, seconds and tokens."""
    return await reader.rows(_ATTEMPTS, prompt=prompt_id, limit=NEWEST_ATTEMPTS)


async def beside(reader: Reader, job_id: int, ordinal: int, prompt_id: int) -> tuple[int | None, int | None]:
    """The prompts before and after one in the order of submission; None at either end."""
    values = {"job": job_id, "ordinal": ordinal, "prompt": prompt_id}
    before = await reader.row(_LOOSE_BEFORE if ordinal < 0 else _BEFORE, **values)
    after = await reader.row(_LOOSE_AFTER if ordinal < 0 else _AFTER, **values)
    return None if before is None else before["id"], None if after is None else after["id"]


_FILE_COLUMNS = """
SELECT f.ordinal, f.document_id, f.name AS document, d.title, d.problem, f.copy, d.pages, d.characters
  FROM job_documents f LEFT JOIN documents d ON d.id = f.document_id
"""

# The files of one job by their key. Only where a name is wanted are titles looked at, which stand before the texts.
_NAMED = """
   AND (:named = '' OR instr(lower(f.name), lower(:named)) > 0
        OR instr(lower(coalesce(d.title, '')), lower(:named)) > 0)
"""

_FILES_AFTER = f"""
{_FILE_COLUMNS} WHERE f.job_id = :job AND f.ordinal > :ordinal {_NAMED} ORDER BY f.ordinal LIMIT :limit
"""

_FILES_BEFORE = f"""
{_FILE_COLUMNS} WHERE f.job_id = :job AND f.ordinal < :ordinal {_NAMED} ORDER BY f.ordinal DESC LIMIT :limit
"""

_FILE = f"{_FILE_COLUMNS} WHERE f.job_id = :job AND f.ordinal = :ordinal"

_TEXT = """
SELECT substr(d.text, :first, :length) AS text FROM job_documents f JOIN documents d ON d.id = f.document_id
 WHERE f.job_id = :job AND f.ordinal = :ordinal
"""

_CELL = """
       p.id AS prompt_id, p.document_id, p.template_id, p.state, p.error, r.finish_reason,
       substr(r.answer, 1, :length) AS excerpt
"""

# CROSS keeps the order of the tables: the few documents of a page, and the prompts of each by their index.
_CELLS = f"""
SELECT {_CELL}
  FROM json_each(:documents) e
 CROSS JOIN prompts p ON p.job_id = :job AND p.document_id = CAST(e.value AS BIGINT)
  LEFT JOIN results r ON r.prompt_id = p.id
 WHERE p.parent_id IS NULL ORDER BY p.id
"""

_LOOSE_CELLS = f"""
SELECT {_CELL}, p.body
  FROM prompts p LEFT JOIN results r ON r.prompt_id = p.id
 WHERE p.job_id = :job AND p.document_id IS NULL AND p.parent_id IS NULL AND p.id > :after ORDER BY p.id LIMIT :limit
"""

_ANSWER_COLUMNS = """
SELECT p.id AS prompt_id, p.job_id, j.name AS job, p.state, p.error, p.body, coalesce(f.ordinal, -1) AS ordinal,
       f.name AS document, d.title, t.name AS prompt, t.text AS question, r.answer, r.data, r.thinking, r.model,
       w.name AS worker, (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts, r.finish_reason,
       r.proof, r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.parts, r.reused_from, r.seconds,
       strftime('%Y-%m-%dT%H:%M:%SZ', coalesce(r.finished_at, p.finished_at), 'unixepoch') AS finished_at
  FROM prompts p
  JOIN jobs j ON j.id = p.job_id
  LEFT JOIN job_documents f ON f.job_id = p.job_id AND f.document_id = p.document_id AND f.copy = 0
  LEFT JOIN documents d ON d.id = p.document_id
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN results r ON r.prompt_id = p.id
  LEFT JOIN workers w ON w.id = coalesce(r.worker_id, p.worker_id)
"""

_ANSWER = f"{_ANSWER_COLUMNS} WHERE p.id = :prompt AND p.job_id = :job AND p.parent_id IS NULL"

_ANSWERS_ABOUT = f"""
{_ANSWER_COLUMNS} WHERE p.job_id = :job AND p.document_id = :document AND p.parent_id IS NULL ORDER BY t.ordinal, p.id
"""

_ATTEMPTS = """
SELECT w.name AS worker, strftime('%Y-%m-%dT%H:%M:%SZ', a.started_at, 'unixepoch') AS at, a.outcome, a.error,
       a.finished_at - a.started_at AS seconds, a.prompt_tokens, a.cached_tokens, a.completion_tokens
  FROM attempts a LEFT JOIN workers w ON w.id = a.worker_id
 WHERE a.prompt_id = :prompt ORDER BY a.id DESC LIMIT :limit
"""

# Files by their key, and the prompts of each by its index: a neighbour costs the same wherever in a job it is.
_BEFORE = """
SELECT p.id FROM job_documents f
 CROSS JOIN prompts p ON p.job_id = f.job_id AND p.document_id = f.document_id
 WHERE f.job_id = :job AND f.copy = 0 AND f.ordinal <= :ordinal AND p.parent_id IS NULL
   AND (f.ordinal < :ordinal OR p.id < :prompt)
 ORDER BY f.ordinal DESC, p.id DESC LIMIT 1
"""

_AFTER = """
SELECT p.id FROM job_documents f
 CROSS JOIN prompts p ON p.job_id = f.job_id AND p.document_id = f.document_id
 WHERE f.job_id = :job AND f.copy = 0 AND f.ordinal >= :ordinal AND p.parent_id IS NULL
   AND (f.ordinal > :ordinal OR p.id > :prompt)
 ORDER BY f.ordinal, p.id LIMIT 1
"""

_LOOSE_BEFORE = """
SELECT id FROM prompts
 WHERE job_id = :job AND document_id IS NULL AND parent_id IS NULL AND id < :prompt ORDER BY id DESC LIMIT 1
"""

_LOOSE_AFTER = """
SELECT id FROM prompts
 WHERE job_id = :job AND document_id IS NULL AND parent_id IS NULL AND id > :prompt ORDER BY id LIMIT 1
"""
