"""The judge of the database: what must be true of any snapshot, and what was true before and must stay so."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError, few
from tests.store.store_kit import assert_agrees

NO_ANSWER_IS_LOST = "no answer is lost"
DONE_ONCE = "nothing is done twice"

# Each finds nothing; `db` is the victim's database.
_PROMISES = {
    "every lease has a live holder": (
        "SELECT id FROM db.prompts WHERE state = 'leased' AND holder NOT IN (SELECT id FROM main.holders)"
    ),
    "only the newest lease ends a prompt": (
        "SELECT r.prompt_id FROM db.results r JOIN db.attempts a ON a.id = r.attempt_id "
        "JOIN db.prompts p ON p.id = r.prompt_id WHERE a.lease <> p.lease"
    ),
    DONE_ONCE: ("SELECT prompt_id FROM db.attempts WHERE outcome = 'done' GROUP BY prompt_id HAVING count(*) > 1"),
    NO_ANSWER_IS_LOST: (
        "SELECT s.prompt_id FROM main.seen s LEFT JOIN db.results r ON r.prompt_id = s.prompt_id "
        "WHERE r.prompt_id IS NULL OR r.attempt_id IS NOT s.attempt_id OR r.answer IS NOT s.answer"
    ),
}
_NEW_PROMPTS = """
SELECT p.id, substr(d.text, 1, 11) || '/' || substr(t.text, 1, 14)
  FROM db.prompts p JOIN db.documents d ON d.id = p.document_id JOIN db.templates t ON t.id = p.template_id
 WHERE p.id > ?
"""
_NEW_RESULTS = """
INSERT INTO main.seen SELECT r.prompt_id, r.attempt_id, r.answer FROM db.results r
 WHERE r.prompt_id NOT IN (SELECT prompt_id FROM main.seen) RETURNING prompt_id, answer
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The database at one moment: prompts by what they ask."""

    at: float
    states: dict[str, str]
    leases: dict[str, int]
    new_answers: list[str]
    failed: dict[str, str]
    losses: int
    open_jobs: list[int]
    coordinator: int
    stale: int

    @property
    def counts(self) -> Counter[str]:
        """How many prompts are in each state."""
        return Counter(self.states.values())


EMPTY = Snapshot(0.0, {}, {}, [], {}, 0, [], 0, 0)


@dataclass(slots=True)
class Ledger:
    """Keeps what was seen of one database, and looks at all of it again and again."""

    path: Path
    looks: int = 0
    seconds: float = 0.0
    _keys: dict[int, str] = field(default_factory=dict)
    _connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def look(self, also_alive: int = 0) -> Snapshot:
        """Judge the database as it is now; raises BrokenPromiseError.

        `also_alive` is a coordinator that holds leases beside the newest one.
        """
        with self.pinned() as connection:
            return EMPTY if connection is None else self.judge(connection, also_alive)

    @contextmanager
    def pinned(self) -> Iterator[sqlite3.Connection | None]:
        """The database as it is now, whatever is written meanwhile; None before there is one."""
        connection = self._open()
        if not self.path.exists():
            yield None
            return
        connection.execute("ATTACH DATABASE ? AS db", (f"{self.path.resolve().as_uri()}?mode=ro",))
        try:
            connection.execute("BEGIN")
            ready = connection.execute("SELECT 1 FROM db.sqlite_master WHERE name = 'results'").fetchone()
            yield connection if ready else None
        finally:
            if connection.in_transaction:
                # What was seen is kept; nothing was written to the database itself.
                connection.execute("COMMIT")
            connection.execute("DETACH DATABASE db")

    def judge(self, connection: sqlite3.Connection, also_alive: int = 0) -> Snapshot:
        """Judge what is pinned."""
        at = time.monotonic()
        self.looks += 1
        found = connection.execute("PRAGMA db.integrity_check(5)").fetchall()
        if found != [("ok",)]:
            raise BrokenPromiseError("the file is sound", few([row[0] for row in found]))
        try:
            assert_agrees(lambda statement: connection.execute(statement).fetchall())
        except AssertionError as error:
            raise BrokenPromiseError("the database agrees with itself", str(error) or "counters") from None
        newest = connection.execute("SELECT coalesce(max(id), 0) FROM db.coordinators").fetchone()[0]
        connection.execute("DELETE FROM main.holders")
        connection.executemany("INSERT INTO main.holders VALUES (?)", {(newest,), (also_alive,)})
        for promise, statement in _PROMISES.items():
            rows = connection.execute(statement).fetchall()
            if rows:
                raise BrokenPromiseError(promise, f"prompts {few([row[0] for row in rows])}")
        snapshot = self._read(connection, at, newest)
        self.seconds += time.monotonic() - at
        return snapshot

    def _read(self, connection: sqlite3.Connection, at: float, newest: int) -> Snapshot:
        last = max(self._keys, default=0)
        self._keys |= dict(connection.execute(_NEW_PROMPTS, (last,)))
        new_answers = []
        for prompt_id, answer in connection.execute(_NEW_RESULTS).fetchall():
            key = self._keys[prompt_id]
            if answer.rpartition("#")[0] != key:
                raise BrokenPromiseError("an answer is its own prompt's", f"{key} is answered by {answer!r}")
            new_answers.append(key)
        rows = connection.execute("SELECT id, state, lease, losses FROM db.prompts").fetchall()
        failed = connection.execute("SELECT id, error FROM db.prompts WHERE state = 'failed'").fetchall()
        stale = connection.execute("SELECT count(*) FROM db.attempts WHERE outcome = 'stale'").fetchone()[0]
        open_jobs = connection.execute("SELECT id FROM db.jobs WHERE finished_at IS NULL ORDER BY id").fetchall()
        return Snapshot(
            at=at,
            states={self._keys[row[0]]: row[1] for row in rows},
            leases={self._keys[row[0]]: row[2] for row in rows},
            new_answers=new_answers,
            failed={self._keys[prompt_id]: str(error) for prompt_id, error in failed},
            losses=max((row[3] for row in rows), default=0),
            open_jobs=[row[0] for row in open_jobs],
            coordinator=newest,
            stale=stale,
        )

    def count(self, promise: str) -> int:
        """How many prompts break one of the promises that are told in SQL."""
        with self.pinned() as connection:
            return 0 if connection is None else len(connection.execute(_PROMISES[promise]).fetchall())

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            # What was seen lies in memory; the database itself is attached for each look alone, and read-only.
            self._connection = sqlite3.connect("file::memory:", uri=True, isolation_level=None, check_same_thread=False)
            self._connection.execute(
                "CREATE TABLE main.seen (prompt_id INTEGER PRIMARY KEY, attempt_id INTEGER, answer TEXT)"
            )
            self._connection.execute("CREATE TABLE main.holders (id INTEGER PRIMARY KEY)")
        return self._connection
