"""SQL that people write themselves: it may only read, and it ends when its time is over."""

import math
import pickle
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar

from distllm.domain.errors import DistllmError, UsageError
from distllm.store.reads import PAGE_ROWS, found
from distllm.store.tx import Row, length

T = TypeVar("T")

PAGE_CHARACTERS = 1_000_000
"""A page ends early once its texts and blobs are this long: its memory is bounded, however wide the cells."""

TAKEN_SECONDS = 10.0
"""How long a page may wait to be taken. Then the rest is put aside, and the database is let go.

A pager that is left open for a night would keep the write-ahead log from being emptied.
"""

TABLE_ROWS = 1_000
LONGEST_IN_TABLE = 2_000
"""The rows, and the characters of a cell, that people are shown."""

LARGEST_REST = 256 * 2**20
"""The bytes of rows that are put aside at most."""

_GRACE_SECONDS = 1.0
_INTERRUPTS = 10
_LONGEST_CELL = 64 * 1024 * 1024
_LONGEST_PATTERN = 1_000
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


class Query:
    """A statement that runs in a thread of its own; its time is what is spent waiting for it, and no other."""

    def __init__(self, connection: sqlite3.Connection, seconds: float, rows: int | None) -> None:
        self._connection = connection
        self._seconds = seconds
        self._left = seconds
        self._wanted = math.inf if rows is None else rows
        self._cursor: sqlite3.Cursor | None = None
        self._moving = threading.Lock()
        self._untaken = self._ended = False
        self._watch: threading.Timer | None = None
        self._aside: IO[bytes] | None = None
        self._late: Exception | None = None
        self.stuck = False
        self.names: list[str] = []

    def start(self, statement: str) -> None:
        """Begin; afterwards `names` are the columns, without two that are the same."""
        self._cursor = self._within(lambda: self._connection.execute(statement))
        if self._cursor.description is None:
            raise UsageError("this query asks nothing: give a SELECT statement")
        for name, *_ in self._cursor.description:
            self.names.append(_unused(name, self.names))

    def pages(self) -> Iterator[list[Row]]:
        """The rows, some at a time."""
        while self._aside is None and (page := self._within(self._page)):
            self._untaken = True
            self._watch = threading.Timer(TAKEN_SECONDS, self._put_aside)
            self._watch.daemon = True
            self._watch.start()
            yield page
            self._watch.cancel()
            with self._moving:
                self._untaken = False
        if self._aside is not None:
            yield from self._pages_aside(self._aside)

    def end(self) -> None:
        """Stop whatever goes on still."""
        self._ended = True
        if self._watch is not None:
            self._watch.cancel()
        self._connection.interrupt()
        with self._moving:
            self._untaken = False
            if self._aside is not None:
                self._aside.close()

    def _put_aside(self) -> None:
        with self._moving:
            if not self._untaken:
                return
            assert self._cursor is not None
            self._aside = TemporaryFile()  # noqa: SIM115 - closed by `end`
            try:
                while not self._ended and (page := self._within(self._page)):
                    pickle.dump(page, self._aside)
                    if self._aside.tell() > LARGEST_REST:
                        raise DistllmError("the rows were not taken in time, and are too many to be kept: use a file")
            except Exception as error:
                self._late = error
            if not self.stuck:
                self._cursor.close()

    def _pages_aside(self, rest: IO[bytes]) -> Iterator[list[Row]]:
        end = rest.seek(0, 2)
        rest.seek(0)
        while rest.tell() < end:
            yield pickle.load(rest)
        if self._late is not None:
            raise self._late

    def _page(self) -> list[Row]:
        assert self._cursor is not None
        rows: list[Row] = []
        size = 0
        while len(rows) < min(PAGE_ROWS, self._wanted) and size < PAGE_CHARACTERS:
            row = self._cursor.fetchone()
            if row is None:
                break
            rows.append(row)
            size += length(row)
        self._wanted -= len(rows)
        return rows

    # The thread is not waited for at the program's end: one function of SQLite, a LIKE or a replace() over
    # megabytes, cannot be interrupted.
    def _within(self, work: Callable[[], T]) -> T:
        ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                ended.put((work(), None))
            except BaseException as error:
                ended.put((None, error))

        began = time.monotonic()
        threading.Thread(target=run, name="distllm-query", daemon=True).start()
        try:
            value, error = ended.get(timeout=min(max(self._left, 0.0), threading.TIMEOUT_MAX))
        except (queue.Empty, KeyboardInterrupt) as stopped:
            self.stuck = True
            # Again and again: an interrupt before the statement has begun is without effect.
            for _ in range(_INTERRUPTS):
                self._connection.interrupt()
                with suppress(queue.Empty):
                    ended.get(timeout=_GRACE_SECONDS / _INTERRUPTS)
                    self.stuck = False
                    break
            if isinstance(stopped, KeyboardInterrupt):
                raise
            raise DistllmError(
                f"the query was stopped after {self._seconds:g} s: let it ask for less, or give `distllm query` more"
            ) from None
        self._left -= time.monotonic() - began
        if isinstance(error, (sqlite3.Error, sqlite3.Warning, UnicodeError)):
            raise _refusal(error) from error
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where T allows it


@contextmanager
def open_query(path: Path, statement: str, seconds: float, rows: int | None = None) -> Iterator[Query]:
    """Run a statement that only reads, for `seconds` at most, and give `rows` at most.

    An authorizer lets nothing pass but SELECT, reading columns and calling functions: `mode=ro` alone would
    let ATTACH and PRAGMA through. Raises UsageError for anything else, with SQLite's own words, and
    DistllmError once the time is over.
    """
    connection = sqlite3.connect(found(path), uri=True, isolation_level=None, check_same_thread=False)
    query = Query(connection, seconds, rows)
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_CELL)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _LONGEST_PATTERN)
        connection.text_factory = _text
        # Declared before the authorizer looks: SQLite declares them by a CREATE TABLE of its own.
        connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
        connection.set_authorizer(_only_reading)
        query.start(statement)
        yield query
    finally:
        query.end()
        # What is stuck holds the connection, and closing it would wait.
        if not query.stuck:
            connection.close()


def in_table(value: Any, hint: str = "") -> str:
    """A value as people are shown it; `hint` says of one that is cut where all of it is."""
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST_IN_TABLE else f"{text[:LONGEST_IN_TABLE]}… ({len(text):,} characters{hint})"


def _only_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _refusal(error: Exception) -> DistllmError:
    said = "it is not valid UTF-8" if isinstance(error, UnicodeError) else str(error)
    if "image is malformed" in said:
        return DistllmError(f"the database is damaged: {said}; `distllm db check` tells how far")
    remedy = "only SELECT statements are"
    if said.startswith("no such"):
        remedy = "`select name, sql from sqlite_master` shows what there is"
    elif "too big" in said:
        remedy = "take less of it at once, with substr()"
    return UsageError(f"this query cannot be run: {' '.join(said.split()).rstrip('.')}; {remedy}")


# Another program may have written what is no UTF-8.
def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _unused(name: str, taken: list[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
