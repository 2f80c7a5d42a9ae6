"""Reading, beside the writer and never in its way. Statements stand on the views that people use too."""

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosqlite

from distllm.domain.errors import DistllmError
from distllm.domain.hosts import seen_here
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.store.engines import postgres
from distllm.store.locks import coordinator_pid
from distllm.store.migrate import upgrade

if TYPE_CHECKING:
    from distllm.store.postgres.questions import Questions

Record = dict[str, Any]

PAGE_ROWS = 200
"""Rows fetched at a time, so that no reader keeps the write-ahead log from being checkpointed for long."""


class Reader(ABC):
    """Asks the database at `place`, and writes nothing. Statements are in SQL that both engines understand.

    Of what only SQLite has, so much is put into PostgreSQL's words: `strftime`, `json_each`, `instr`, and CROSS JOIN
    where the order of tables is told.
    """

    place: DatabasePlace

    @abstractmethod
    async def rows(self, statement: str, **values: Any) -> list[Record]:
        """All rows of a statement, each a dict by column name."""

    @abstractmethod
    async def changes(self) -> int:
        """A number that differs once any other connection has committed; on PostgreSQL also every few seconds."""

    @abstractmethod
    async def coordinator(self) -> int | None:
        """The process that works the database now, one of them where there are several; None if there is none."""

    async def row(self, statement: str, **values: Any) -> Record | None:
        """The first row, None without one."""
        rows = await self.rows(statement, **values)
        return rows[0] if rows else None

    async def jobs(self) -> list[Record]:
        """All jobs, oldest first: the columns of `job_progress`, and `model`."""
        return await self.rows(_JOBS)

    async def job(self, job_id: int) -> Record | None:
        """One job: as `jobs`, with what its answers cost and how many files could not be read."""
        return await self.row(_JOB, job=job_id)

    async def held(self, coordinator_id: int) -> set[tuple[int, int]]:
        """The leases that a coordinator has, as (prompt, lease number)."""
        return {(row["id"], row["lease"]) for row in await self.rows(_HELD, me=coordinator_id)}

    async def paused(self) -> set[int]:
        """The jobs that are paused."""
        return {row["id"] for row in await self.rows(_PAUSED)}

    async def unfit(self, model: str, window: int, workers: Sequence[int]) -> tuple[int, int, bool]:
        """The waiting prompts for a model that none of `workers` takes, `window` tokens being the most they hold.

        How many they are, the most tokens that one needs, and whether others wait too.
        """
        values = {"model": model, "window": window, "workers": json.dumps(list(workers)), "all": len(workers)}
        row = await self.row(_UNFIT, **values)
        assert row is not None
        return row["prompts"], row["largest"] or 0, bool(row["others"])

    async def unreadable(self, job_id: int) -> list[Record]:
        """The files of a job that could not be read: document, problem."""
        return await self.rows(_UNREADABLE, job=job_id)

    async def failures(self, job_id: int, limit: int) -> list[Record]:
        """The newest failures of a job, as in the view."""
        return await self.rows(_FAILURES, job=job_id, limit=limit)

    async def workers(self) -> list[Record]:
        """All workers, with the columns of `worker_stats`, their last error and what they were seen to hold."""
        return await self.rows(_WORKERS)

    async def worker_models(self) -> list[Record]:
        """What each worker was seen to have, by its identity, with the tokens a second that were learnt."""
        return await self.rows(_WORKER_MODELS)

    async def recent_attempts(self) -> Record:
        """The newest attempts of those who coordinate: how many ended, how many are in flight, and since when.

        With their `answers`, the tokens `read` and `written` for them, and those that what is in flight has to read,
        `reading`: those of a paper shared among its prompts, where servers do not tell what was cached. `known` is
        false where some are of jobs of which no tokens were counted. No attempt is left once it has ended: the pause
        until the next one begins is no pace.
        """
        return await self.row(_RECENT) or {}

    async def costs(self, job_id: int) -> Record:
        """What reading cost a job and what it has to read, in tokens, as in `job_tokens`; zeros where none is known."""
        row = await self.row(_COSTS, job=job_id)
        assert row is not None
        return row

    async def speeds(self, model: str) -> list[Record]:
        """The tokens a second of workers that a coordinator of today found well, for a model: read, write, seats.

        And the mean tokens of all answers of each, `mean`, None without any. A worker whose speed is not known yet is
        not among them.
        """
        return await self.rows(_SPEEDS, model=model)

    async def unfinished(self) -> list[Record]:
        """Jobs that are neither ended, paused nor to be cancelled: job_id, job, model, submitted.

        A batch whose writing was cut short is not among them: only its program has its prompts.
        """
        return await self.rows(_UNFINISHED)

    async def documents(self, job_id: int, name: str | None) -> list[Record]:
        """The documents of a job that have answers, in the order of submission: document_id, document, title, pages."""
        return await self.rows(_DOCUMENTS, job=job_id, name=name)

    async def answers(self, job_id: int, document_id: int, prompt: str | None) -> list[Record]:
        """The answers about one document of a job, in the order of its questions."""
        return await self.rows(_ANSWERS, job=job_id, document=document_id, prompt=prompt)

    async def sources(self, job_id: int) -> list[Record]:
        """The jobs that a job's reused answers are from: job_id, answers."""
        return await self.rows(_SOURCES, job=job_id)

    async def templates(self, job_id: int) -> list[Record]:
        """The questions of a job in their order: template_id, name, text, max_tokens, merge, and the job's params."""
        return await self.rows(_TEMPLATES, job=job_id)

    async def text(self, document_id: int) -> str:
        """The text of a document."""
        row = await self.row("SELECT text FROM documents WHERE id = :document", document=document_id)
        assert row is not None
        return str(row["text"])

    async def any_answer(self) -> bool:
        """Whether there is an answer of any job."""
        return await self.row("SELECT prompt_id FROM results LIMIT 1") is not None

    async def requests(self, job_id: int, after: int) -> list[Record]:
        """A page of the prompts of a batch that follow prompt `after`, in order, each with what came of it."""
        return await self.rows(_REQUESTS, job=job_id, after=after, limit=PAGE_ROWS)


class SqliteReader(Reader):
    """A connection that only reads."""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        self.place = path
        connection.row_factory = sqlite3.Row
        self._path = path
        self._connection = connection

    async def rows(self, statement: str, **values: Any) -> list[Record]:
        """All rows of a statement, each a dict by column name."""
        found = list(await self._connection.execute_fetchall(statement, values))
        names = found[0].keys() if found else []
        return [dict(zip(names, row, strict=True)) for row in found]

    async def changes(self) -> int:
        """A number that differs once any other connection has committed."""
        [[version]] = await self._connection.execute_fetchall("PRAGMA data_version")
        return int(version)

    async def coordinator(self) -> int | None:
        """The process that holds the coordinator's lock."""
        return coordinator_pid(self._path)


class PostgresReader(Reader):
    """A few connections that only read."""

    def __init__(self, url: PostgresUrl, questions: "Questions") -> None:
        self.place = url
        self._questions = questions

    async def rows(self, statement: str, **values: Any) -> list[Record]:
        """All rows of a statement, each a dict by column name."""
        found = await self._questions.ask(statement, values)
        if found and "identity" in found[0]:
            for row in found:
                row["identity"] = seen_here(self._questions.host, row["identity"])
        return found

    async def changes(self) -> int:
        """A number that differs once somebody has announced a change, and every few seconds."""
        return await self._questions.changes()

    def drop(self) -> None:
        """Give all connections up."""
        self._questions.drop()

    async def coordinator(self) -> int | None:
        """The newest coordinator that is alive."""
        row = await self.row(_ALIVE)
        return None if row is None else int(row["pid"])


def found(path: Path) -> str:
    """The URI that opens a database to read it, brought to the newest schema. A missing one is an error of one line."""
    if not path.exists():
        raise DistllmError(f"there is no database {path} yet: `distllm submit` makes one, or name another with --db")
    upgrade(path)
    return f"{path.resolve().as_uri()}?mode=ro"


async def is_made(place: DatabasePlace) -> bool:
    """Whether there is a database; one of a server that has no table yet is none."""
    if isinstance(place, PostgresUrl):
        return await postgres("schema").server_revision(place) is not None
    return place.exists()


@asynccontextmanager
async def open_reader(place: DatabasePlace) -> AsyncIterator[Reader]:
    """Open a database to read it. It is never created: a missing one is an error of one line."""
    if isinstance(place, PostgresUrl):
        await postgres("schema").must_be_made(place)
        async with postgres("questions").open_questions(place) as questions:
            yield PostgresReader(place, questions)
        return
    uri = await asyncio.to_thread(found, place)
    async with aiosqlite.connect(uri, uri=True, isolation_level=None) as connection:
        await connection.execute("PRAGMA query_only=ON")
        yield SqliteReader(place, connection)


_ALIVE = """
SELECT pid FROM coordinators
 WHERE ended_at IS NULL AND alive_until > CAST(extract(epoch FROM clock_timestamp()) AS double precision)
 ORDER BY id DESC LIMIT 1
"""


# Progress is read from counters: a job of a million prompts costs as little as one of ten.
_JOBS = """
SELECT v.*, j.model, j.preset, j.submitted_at IS NOT NULL AS submitted
  FROM job_progress v JOIN jobs j ON j.id = v.job_id ORDER BY v.job_id
"""

_JOB = """
SELECT v.*, j.model, j.preset, j.submitted_at IS NOT NULL AS submitted, j.started_at AS began, j.finished_at AS ended,
       j.cancel_requested_at IS NOT NULL AS cancelling,
       c.prompt_tokens, c.cached_tokens, c.completion_tokens, c.truncated, c.unproven, c.reused,
       coalesce(c.parts, 0) AS parts, coalesce(c.parts_done, 0) AS parts_done,
       coalesce(c.parts_truncated, 0) AS parts_truncated,
       coalesce(c.parts_pending, 0) AS parts_pending, coalesce(c.parts_leased, 0) AS parts_leased,
       (SELECT max(p.level) FROM prompts p WHERE p.job_id = j.id AND p.level > 0) AS levels,
       (SELECT count(*) FROM job_documents f WHERE f.job_id = j.id) AS files,
       (SELECT count(*) FROM job_documents f JOIN documents d ON d.id = f.document_id
         WHERE f.job_id = j.id AND f.reading_id IS NULL AND d.problem IS NOT NULL) AS unreadable,
       (SELECT count(*) FROM job_documents f
         WHERE f.job_id = j.id AND f.copy = 1 AND f.reading_id IS NOT NULL) AS copies
  FROM job_progress v JOIN jobs j ON j.id = v.job_id
  LEFT JOIN (SELECT job_id, sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens,
                    sum(completion_tokens) AS completion_tokens,
                    sum(truncated) FILTER (WHERE part = 0) AS truncated,
                    sum(unproven) FILTER (WHERE part = 0) AS unproven, sum(reused) AS reused,
                    sum(pending + leased + done + failed + cancelled) FILTER (WHERE part = 1) AS parts,
                    sum(done) FILTER (WHERE part = 1) AS parts_done,
                    sum(truncated) FILTER (WHERE part = 1) AS parts_truncated,
                    sum(pending) FILTER (WHERE part = 1) AS parts_pending,
                    sum(leased) FILTER (WHERE part = 1) AS parts_leased
               FROM job_counters GROUP BY job_id) c ON c.job_id = j.id
 WHERE v.job_id = :job
"""

_HELD = "SELECT id, lease FROM prompts WHERE state = 'leased' AND holder = :me"

_PAUSED = "SELECT id FROM jobs WHERE paused_at IS NOT NULL AND finished_at IS NULL"

# Only what has no reading can have a problem: the documents of all other files need not be looked at.
_UNREADABLE = """
SELECT f.name AS document, d.problem FROM job_documents f JOIN documents d ON d.id = f.document_id
 WHERE f.job_id = :job AND f.reading_id IS NULL AND d.problem IS NOT NULL ORDER BY f.ordinal
"""

FAILED = """
       p.job_id, f.name AS document, t.name AS prompt,
       (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts, w.name AS worker, p.error,
       strftime('%Y-%m-%dT%H:%M:%SZ', p.finished_at, 'unixepoch') AS failed_at
  FROM prompts p
  LEFT JOIN job_documents f ON f.job_id = p.job_id AND f.document_id = p.document_id AND f.copy = 0
  LEFT JOIN templates t ON t.id = p.template_id
  LEFT JOIN workers w ON w.id = p.worker_id
"""
"""What the view `failures` tells of failed prompts, for statements that choose them by more than it tells."""

# Only the newest are told about, however many there are.
_FAILURES = f"""
SELECT {FAILED}
 WHERE p.id IN (SELECT id FROM prompts WHERE job_id = :job AND state = 'failed' AND parent_id IS NULL
                 ORDER BY finished_at DESC LIMIT :limit)
 ORDER BY p.finished_at DESC
"""

_WORKERS = """
SELECT v.*, w.identity, w.error, w.breaker, w.slots, w.seats
  FROM worker_stats v JOIN workers w ON w.name = v.worker ORDER BY v.worker
"""

_WORKER_MODELS = """
SELECT w.identity, m.model, m.context_length, m.loaded, m.prefill_rate, m.decode_rate, m.load_seconds
  FROM worker_models m JOIN workers w ON w.id = m.worker_id ORDER BY m.loaded DESC NULLS LAST, m.model
"""

# The pace of the last attempts, found from the end of the table: never a scan of a long job's history.
_RECENT = """
WITH newest AS MATERIALIZED (
  SELECT a.prompt_id, a.started_at, a.finished_at, a.outcome, a.prompt_tokens, a.cached_tokens, a.completion_tokens
    FROM coordinators c
   CROSS JOIN attempts a ON a.id >= c.id << 32
         AND a.id > (SELECT max(m.id) FROM attempts m WHERE m.id < (c.id + 1) << 32) - 64 AND a.id < (c.id + 1) << 32
   WHERE c.ended_at IS NULL),
told AS (
  SELECT n.*, CASE WHEN p.level > 0 THEN p.tokens
                   ELSE r.tokens * t.readings / t.asked + t.question_tokens / t.asked END AS share
    FROM newest n JOIN prompts p ON p.id = n.prompt_id JOIN readings r ON r.id = p.reading_id
    LEFT JOIN (SELECT job_id, sum(readings) AS readings, nullif(sum(asked), 0) * 1.0 AS asked,
                      sum(question_tokens) AS question_tokens
                 FROM job_tokens GROUP BY job_id) t ON t.job_id = p.job_id)
SELECT count(finished_at) AS ended, min(started_at) AS since, count(*) FILTER (WHERE outcome = 'done') AS answers,
       count(*) - count(finished_at) AS in_flight, count(*) = count(share) AS known,
       coalesce(sum(CASE WHEN prompt_tokens < cached_tokens THEN 0
                         ELSE coalesce(prompt_tokens - cached_tokens, share) END)
                FILTER (WHERE outcome = 'done'), 0) AS read,
       coalesce(sum(completion_tokens) FILTER (WHERE outcome = 'done'), 0) AS written,
       coalesce(sum(share) FILTER (WHERE finished_at IS NULL), 0) AS reading
  FROM told
"""

_COSTS = """
SELECT coalesce(sum(asked), 0) AS asked, coalesce(sum(readings), 0) AS readings,
       coalesce(sum(reading_tokens), 0) AS reading_tokens, coalesce(sum(question_tokens), 0) AS question_tokens,
       coalesce(sum(begun_tokens), 0) AS begun_tokens, coalesce(sum(read_tokens), 0) AS read_tokens,
       coalesce(sum(found_tokens), 0) AS found_tokens, coalesce(sum(least_tokens), 0) AS least_tokens,
       coalesce(sum(untold), 0) AS untold
  FROM job_tokens WHERE job_id = :job
"""

# A worker that no coordinator of today has looked at may be well in the database for ever.
_SPEEDS = """
SELECT m.prefill_rate AS read, m.decode_rate AS write, coalesce(w.slots, 1) AS seats,
       w.completion_tokens * 1.0 / nullif(w.succeeded, 0) AS mean
  FROM worker_models m JOIN workers w ON w.id = m.worker_id
 WHERE m.model = :model AND w.healthy = 1 AND w.breaker <> 'open' AND m.prefill_rate > 0 AND m.decode_rate > 0
   AND w.last_seen_at >= coalesce((SELECT min(started_at) FROM coordinators WHERE ended_at IS NULL),
                                  (SELECT max(started_at) FROM coordinators))
"""

_UNFIT = """
WITH waiting AS (
  SELECT p.id, p.tokens FROM jobs j JOIN prompts p ON p.job_id = j.id
   WHERE j.model = :model AND j.submitted_at IS NOT NULL AND j.finished_at IS NULL AND j.paused_at IS NULL
     AND j.cancel_requested_at IS NULL AND p.state = 'pending' AND p.waits_for = 0),
refused AS (
  SELECT prompt_id FROM refusals WHERE worker_id IN (SELECT CAST(value AS BIGINT) FROM json_each(:workers))
   GROUP BY prompt_id HAVING count(*) = :all),
unfit AS (
  SELECT id, tokens FROM waiting WHERE tokens > :window
   UNION SELECT w.id, w.tokens FROM refused r JOIN waiting w ON w.id = r.prompt_id)
SELECT count(*) AS prompts, max(tokens) AS largest,
       EXISTS (SELECT 1 FROM waiting WHERE tokens <= :window AND id NOT IN (SELECT prompt_id FROM refused)) AS others
  FROM unfit
"""

_UNFINISHED = """
SELECT id AS job_id, name AS job, model, submitted_at IS NOT NULL AS submitted
  FROM jobs WHERE finished_at IS NULL AND paused_at IS NULL AND cancel_requested_at IS NULL
   AND (submitted_at IS NOT NULL OR EXISTS (SELECT 1 FROM job_documents f WHERE f.job_id = jobs.id))
 ORDER BY id
"""

_DOCUMENTS = """
SELECT f.document_id, f.name AS document, d.title, d.pages
  FROM job_documents f JOIN documents d ON d.id = f.document_id
 WHERE f.job_id = :job AND f.copy = 0 AND f.reading_id IS NOT NULL AND (f.name = :name OR :name IS NULL)
 ORDER BY f.ordinal
"""

_ANSWERS = """
SELECT t.name AS prompt, r.answer, r.model, w.name AS worker, r.finish_reason, r.proof, r.parts, r.seconds,
       p.state, p.error
  FROM prompts p JOIN templates t ON t.id = p.template_id
  LEFT JOIN results r ON r.prompt_id = p.id LEFT JOIN workers w ON w.id = r.worker_id
 WHERE p.job_id = :job AND p.document_id = :document AND p.parent_id IS NULL AND (t.name = :prompt OR :prompt IS NULL)
 ORDER BY t.ordinal
"""

# CROSS keeps the order of the tables: the job's own prompts first, whatever the statistics say of the others.
_SOURCES = """
SELECT r.reused_from AS job_id, count(*) AS answers FROM prompts p CROSS JOIN results r ON r.prompt_id = p.id
 WHERE p.job_id = :job AND p.parent_id IS NULL AND r.reused_from IS NOT NULL
 GROUP BY r.reused_from ORDER BY r.reused_from
"""

_TEMPLATES = """
SELECT t.id AS template_id, t.name, t.text, t.max_tokens, t.merge, j.params
  FROM templates t JOIN jobs j ON j.id = t.job_id WHERE t.job_id = :job ORDER BY t.ordinal
"""

_REQUESTS = """
SELECT p.id AS prompt_id, p.body, p.state, p.error, r.answer, r.model, w.name AS worker, r.finish_reason, r.thinking,
       r.proof, r.parts, r.seconds, r.prompt_tokens, r.cached_tokens, r.completion_tokens,
       (SELECT count(*) FROM attempts a WHERE a.prompt_id = p.id) AS attempts
  FROM prompts p LEFT JOIN results r ON r.prompt_id = p.id
  LEFT JOIN workers w ON w.id = coalesce(r.worker_id, p.worker_id)
 WHERE p.job_id = :job AND p.document_id IS NULL AND p.id > :after ORDER BY p.id LIMIT :limit
"""
