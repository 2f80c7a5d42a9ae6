"""What the tests of the store share: a database to write to, jobs made by the real functions, and its checks."""

import hashlib
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import asyncpg

from distllm.domain.models import Ask, Document, ErrorClass, Outcome, Template, Usage
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.domain.policy import Done, Verdict, verdict
from distllm.domain.states import PromptState
from distllm.store.attempts import Sent, Settlement, record_sent
from distllm.store.claims import claim
from distllm.store.fleet import know_worker, register
from distllm.store.leases import Group, Lease, reclaim
from distllm.store.parts import keep_window, long_documents, save_parts
from distllm.store.postgres.connection import connect, set_up
from distllm.store.postgres.words import in_its_words
from distllm.store.postgres.writer import PostgresWriter
from distllm.store.readings import NewPart, NewReading
from distllm.store.results import settle
from distllm.store.sqlite import SqliteTx
from distllm.store.submissions import NewJob, NewQuestion, build_prompts, create_job, save_document
from distllm.store.suspects import condemn
from distllm.store.tx import Tx
from tests.postgres_server import PostgresServer

T = TypeVar("T")
NOW = 1_800_000_000.0
MODEL = "llama-8b"
QUESTION_TOKENS = 10
MERGE_TOKENS = 30
MAX_TOKENS = 100
HUGE = 1_000_000
WINDOW = 600
"""Holds a merge of three answers."""
PART = 300


class Store(ABC):
    """A migrated database, and a connection on which transactions run whole."""

    engine: str
    place: DatabasePlace

    def __init__(self) -> None:
        self._attempts = count(1)

    @abstractmethod
    def write(self, transaction: Callable[[Tx], T]) -> T:
        """Run a transaction and commit."""

    @abstractmethod
    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a statement; a `?` stands for each of `values`."""

    @abstractmethod
    def columns(self, relation: str) -> list[str]:
        """The names of the columns of a table or a view, in their order."""

    @abstractmethod
    def again(self) -> "Store":
        """The same database on connections of its own, as another process has it."""

    @abstractmethod
    def close(self) -> None:
        """Close its connections."""

    @abstractmethod
    def be_pruned(self) -> None:
        """Look after references as the database does while it is pruned."""

    @abstractmethod
    def faults(self) -> list[tuple[Any, ...]]:
        """What the database itself finds wrong with what it holds."""

    def value(self, statement: str, *values: Any) -> Any:
        return self.rows(statement, *values)[0][0]

    def prompt(self, prompt_id: int, columns: str) -> tuple[Any, ...]:
        return self.rows(f"SELECT {columns} FROM prompts WHERE id = ?", prompt_id)[0]

    def states(self, job_id: int) -> dict[str, int]:
        return dict(self.rows("SELECT state, count(*) FROM prompts WHERE job_id = ? GROUP BY state", job_id))

    def coordinator(self, now: float = NOW) -> int:
        return self.write(lambda tx: register(tx, "here", 1, now))

    def worker(self, name: str) -> int:
        return self.write(lambda tx: know_worker(tx, f"http://{name}:8080", name, "openai"))

    def take(
        self, me: int, worker: int, *, now: float = NOW, held: Sequence[int] = (), limit: int = 50, **more: Any
    ) -> Group | None:
        """What one seat gets; the windows of its worker are huge unless they are given."""
        ask = Ask(worker, more.pop("windows", {MODEL: HUGE}), limit, **more)
        groups = self.write(lambda tx: claim(tx, [ask], held, me, now))
        return groups[0] if groups else None

    def must_take(self, me: int, worker: int, **more: Any) -> Group:
        group = self.take(me, worker, **more)
        assert group is not None
        return group

    def reclaim(self, now: float = NOW) -> int:
        """A new coordinator takes over; its id."""
        me = self.coordinator(now)
        self.write(lambda tx: (reclaim(tx, me, now), condemn(tx, now)))
        return me

    def send(self, me: int, worker: int, lease: Lease, now: float = NOW) -> Sent:
        sent = self.unwritten(me, worker, lease, now)
        self.write(lambda tx: record_sent(tx, [sent]))
        return sent

    def unwritten(self, me: int, worker: int, lease: Lease, now: float = NOW) -> Sent:
        """An attempt that no commit has told of yet."""
        return Sent((me << 32) + next(iter(self._attempts)), lease, worker, me, now, lease.needs - MAX_TOKENS)

    def settle(self, *ends: Settlement) -> int:
        """How many answers came too late."""
        moved = self.write(lambda tx: settle(tx, ends))
        return sum(isinstance(each.verdict, Done) and each.sent.id not in moved for each in ends)


class SqliteStore(Store):
    """The database in the file `path`."""

    engine = "sqlite"

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__()
        self.place = self.path = path
        self.connection = connection

    def write(self, transaction: Callable[[Tx], T]) -> T:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            value = transaction(SqliteTx(self.connection))
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return value

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, values).fetchall()

    def columns(self, relation: str) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM pragma_table_info(?)", relation)]

    def again(self) -> "SqliteStore":
        return open_sqlite(self.path)

    def close(self) -> None:
        self.connection.close()

    def be_pruned(self) -> None:
        self.connection.execute("PRAGMA foreign_keys=OFF")

    def faults(self) -> list[tuple[Any, ...]]:
        said = self.rows("PRAGMA integrity_check")
        return [*(said if said != [("ok",)] else []), *self.rows("PRAGMA foreign_key_check")]


def open_sqlite(path: Path) -> SqliteStore:
    """The database in a file, with little care for its disk."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=OFF")
    return SqliteStore(path, connection)


# Statements that find what refers to a row that is missing, as may be where references were not looked after.
_REFERENCES = """
SELECT array_agg(format(
         'SELECT %L, c.%I FROM %s c LEFT JOIN %s o ON o.%I = c.%I WHERE o.%I IS NULL AND c.%I IS NOT NULL',
         f.conname, l.attname, f.conrelid::regclass, f.confrelid::regclass, r.attname, l.attname, r.attname, l.attname))
  FROM pg_constraint f
  JOIN pg_attribute l ON l.attrelid = f.conrelid AND l.attnum = f.conkey[1]
  JOIN pg_attribute r ON r.attrelid = f.confrelid AND r.attnum = f.confkey[1]
 WHERE f.contype = 'f'
"""


# Quicker than a new database by far.
_EMPTY = """
DO $$ DECLARE each regclass; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR each IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                 AND relname <> 'alembic_version' LOOP
    EXECUTE format('DELETE FROM %s', each);
  END LOOP;
  FOR each IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
    PERFORM setval(each, 1, false);
  END LOOP;
END $$
"""


class PostgresStore(Store):
    """A database of `server`. What is asked and what is written run on the server's own event loop, to their end."""

    engine = "postgres"

    def __init__(self, server: PostgresServer, url: str) -> None:
        super().__init__()
        self.place = PostgresUrl(url)
        self.server = server
        self._writer = PostgresWriter(self.place, 0)
        self._connection = server.wait_for(self._connected())

    async def _connected(self) -> asyncpg.Connection:
        connection = await connect(self.place)
        await set_up(connection)
        return connection

    def write(self, transaction: Callable[[Tx], T]) -> T:
        return self.server.wait_for(self._writer.run(transaction))

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        numbers = count(1)
        text = re.sub(r"\?", lambda _: f"${next(numbers)}", in_its_words(statement))
        return [tuple(row) for row in self.server.wait_for(self._connection.fetch(text, *values))]

    def columns(self, relation: str) -> list[str]:
        named = "SELECT column_name FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position"
        return [name for (name,) in self.rows(named, relation)]

    def again(self) -> "PostgresStore":
        return PostgresStore(self.server, self.place.secret)

    def close(self) -> None:
        self.server.wait_for(self._writer.close())
        self.server.wait_for(self._connection.close())

    def be_pruned(self) -> None:
        """As ever: PostgreSQL finds by an index what refers to a row."""

    def empty(self) -> None:
        """Be as a new database is, for the next test."""
        self.rows(_EMPTY)

    def faults(self) -> list[tuple[Any, ...]]:
        return [row for statement in self.value(_REFERENCES) for row in self.rows(statement)]


def outcome(error: ErrorClass | None = None, answer: str = "forty-two", finish_reason: str = "stop") -> Outcome:
    if error is not None:
        return Outcome(error, f"{error}, says the server", "", None, None, None, Usage(), 3.0, None)
    return Outcome(None, None, answer, None, finish_reason, MODEL, Usage(500, 400, 7, 1.0, 2.0), 3.0, 1.0)


def end(
    sent: Sent,
    error: ErrorClass | None = None,
    *,
    answer: str = "forty-two",
    finish_reason: str = "stop",
    now: float = NOW + 3,
    others: tuple[int, ...] = (),
    judged: Verdict | None = None,
    digest: str | None = None,
) -> Settlement:
    """How an attempt ended, judged by the real policy with three retries."""
    ended = outcome(error, answer, finish_reason)
    if judged is None:
        judged = verdict(
            ended,
            failures=sent.lease.failures,
            losses=sent.lease.losses,
            deaths_alone=sent.lease.deaths_alone,
            max_retries=3,
            now=now,
            rng=Random(0),
        )
    return Settlement(sent, ended, judged, "proven", now, others, digest)


def paper(text: str, *, data: bytes | None = None, problem: str | None = None) -> Document:
    """A document with the hash of its bytes, which are its text unless they are given."""
    sha256 = hashlib.sha256(text.encode() if data is None else data).hexdigest()
    return Document(sha256, "" if problem else text, "A title", None, problem)


def reading(text: str) -> NewReading:
    """One token a character, so that tests can choose lengths."""
    return NewReading(hashlib.sha256(text.encode()).hexdigest(), len(text))


def request(
    files: Sequence[str],
    questions: Sequence[str] = ("findings", "limits"),
    *,
    model: str = MODEL,
    priority: int = 0,
    same: str | None = None,
    params: Mapping[str, Any] | None = None,
    fresh: bool = False,
    merge: str | None = None,
) -> NewJob:
    """A request; all with the same `same` are one, and without it each is its own."""
    asked = [
        NewQuestion(Template(name, f"What are its {name}?", merge=merge), MAX_TOKENS, QUESTION_TOKENS, MERGE_TOKENS)
        for name in questions
    ]
    key = f"request {next(_requests)}" if same is None else same
    listed = [(name, f"/papers/{name}", NOW) for name in files]
    return NewJob("job", "research", model, params or {}, priority, key, asked, listed, fresh)


_requests = count()


def build_all(store: Store, job_id: int, now: float = NOW, digests: Sequence[str] = ()) -> None:
    while not store.write(lambda tx: build_prompts(tx, job_id, now, digests)):
        pass


def save_all(store: Store, job_id: int, papers: Sequence[Document], first: int = 0) -> None:
    def transaction(tx: Tx) -> None:
        for ordinal, document in enumerate(papers, first):
            save_document(tx, job_id, ordinal, document, reading, NOW)

    store.write(transaction)


def add_job(
    store: Store,
    papers: Sequence[Document | str],
    questions: Sequence[str] = ("findings",),
    *,
    digests: Sequence[str] = (),
    **more: Any,
) -> int:
    """A whole job: each of `papers` is a document or a text."""
    documents = [paper(each) if isinstance(each, str) else each for each in papers]
    asked = request([f"{place}.txt" for place in range(len(documents))], questions, **more)
    job_id = store.write(lambda tx: create_job(tx, asked, NOW))
    save_all(store, job_id, documents)
    build_all(store, job_id, digests=digests)
    return job_id


def add_long_job(
    store: Store,
    papers: Sequence[str],
    questions: Sequence[str] = ("findings",),
    *,
    window: int = WINDOW,
    size: int = PART,
    digests: Sequence[str] = (),
    **more: Any,
) -> int:
    """A whole job: whatever needs more than `window` tokens is split into parts of `size` characters."""
    asked = request([f"{place}.txt" for place in range(len(papers))], questions, **more)
    job_id = store.write(lambda tx: create_job(tx, asked, NOW))
    save_all(store, job_id, [paper(each) for each in papers])
    plan_parts(store, job_id, window, size)
    build_all(store, job_id, digests=digests)
    return job_id


def plan_parts(store: Store, job_id: int, window: int = WINDOW, size: int = PART) -> None:
    """Split the long documents of a job that has read its files."""
    store.write(lambda tx: keep_window(tx, job_id, window))
    longest = window - QUESTION_TOKENS - MAX_TOKENS
    for ordinal, document_id in store.write(lambda tx: long_documents(tx, job_id, longest)):
        text = store.value("SELECT text FROM documents WHERE id = ?", document_id)
        parts = [
            NewPart(first, min(first + size, len(text)), reading(text[first : first + size]))
            for first in range(0, len(text), size)
        ]
        store.write(lambda tx, at=ordinal, parts=parts: save_parts(tx, job_id, at, parts))


def split(store: Store, parent_id: int, parts: int) -> list[int]:
    """Let a prompt wait for parts of it, as the splitting of a long paper does."""
    columns = "job_id, document_id, reading_id, template_id, tokens"
    store.rows("BEGIN")
    store.rows("UPDATE prompts SET waits_for = ?, part = NULL WHERE id = ?", parts, parent_id)
    made = [
        store.value(
            f"INSERT INTO prompts ({columns}, parent_id, part, parts) "
            f"SELECT {columns}, id, CAST(? AS BIGINT), CAST(? AS BIGINT) FROM prompts WHERE id = ? RETURNING id",
            part,
            parts,
            parent_id,
        )
        for part in range(1, parts + 1)
    ]
    store.rows(
        "WITH RECURSIVE above(id) AS (SELECT CAST(? AS BIGINT) UNION ALL "
        "SELECT parent_id FROM prompts p JOIN above a ON p.id = a.id WHERE parent_id IS NOT NULL) "
        "UPDATE prompts SET level = level + 1 WHERE id IN (SELECT id FROM above)",
        parent_id,
    )
    store.rows(
        "INSERT INTO job_counters (job_id, coordinator_id, part, pending) "
        "SELECT job_id, 0, 1, CAST(? AS BIGINT) FROM prompts WHERE id = ? "
        "ON CONFLICT (job_id, coordinator_id, part) DO UPDATE SET pending = job_counters.pending + excluded.pending",
        parts,
        parent_id,
    )
    store.rows("COMMIT")
    return made


_STATES = tuple(PromptState)
_COUNTED = f"""
SELECT job_id, part, {", ".join(f"sum({state})" for state in _STATES)}, sum(completion_tokens), sum(prompt_tokens),
       sum(truncated), sum(unproven), sum(reused)
  FROM job_counters GROUP BY job_id, part
"""
_ROWS = f"""
SELECT p.job_id, p.parent_id IS NOT NULL AS part,
       {", ".join(f"count(*) FILTER (WHERE p.state = '{state}')" for state in _STATES)},
       coalesce(sum(r.completion_tokens) FILTER (WHERE r.reused_from IS NULL), 0),
       coalesce(sum(r.prompt_tokens) FILTER (WHERE r.reused_from IS NULL), 0),
       count(*) FILTER (WHERE r.finish_reason = 'length'), count(*) FILTER (WHERE r.proof = 'unproven'),
       count(r.reused_from)
  FROM prompts p LEFT JOIN results r ON r.prompt_id = p.id GROUP BY 1, 2
"""
# Each finds nothing in a database that keeps its promises.
_FAULTS = {
    "leased without a holder": "SELECT id FROM prompts WHERE (state = 'leased') <> (holder IS NOT NULL)",
    "done without a result, or a result of another": (
        "SELECT p.id FROM prompts p LEFT JOIN results r ON r.prompt_id = p.id "
        "WHERE (p.state = 'done') <> (r.prompt_id IS NOT NULL)"
    ),
    "a result whose attempt did not give it": (
        "SELECT r.prompt_id FROM results r LEFT JOIN attempts a ON a.id = r.attempt_id "
        "WHERE r.reused_from IS NULL AND (coalesce(a.prompt_id, 0) <> r.prompt_id OR coalesce(a.outcome, '') <> 'done')"
    ),
    "a result with a source and an attempt": (
        "SELECT prompt_id FROM results WHERE (reused_from IS NULL) = (attempt_id IS NULL)"
    ),
    "waits for another number of parts than it has unfinished": (
        "SELECT p.id FROM prompts p WHERE p.waits_for <> "
        "(SELECT count(*) FROM prompts c WHERE c.parent_id = p.id AND c.state <> 'done')"
    ),
    "a job that ended too early or too late": (
        "SELECT j.id FROM jobs j WHERE (j.finished_at IS NULL) <> (j.submitted_at IS NULL OR EXISTS "
        "(SELECT 1 FROM prompts p WHERE p.job_id = j.id AND p.state IN ('pending', 'leased')))"
    ),
}


def assert_consistent(store: Store) -> None:
    """What is true of the database between any two transactions, and of what it is made of."""
    assert_agrees(store.rows)
    assert store.faults() == []


def assert_agrees(ask: Callable[[str], list[tuple[Any, ...]]]) -> None:
    """What is true of the database between any two transactions; `ask` gives the rows of a statement."""
    for fault, statement in _FAULTS.items():
        found = ask(statement)
        assert not found, f"{fault}: {found}"
    counted = {row[:2]: row[2:] for row in ask(_COUNTED) if any(row[2:])}
    rows = {row[:2]: row[2:] for row in ask(_ROWS)}
    assert counted == rows
