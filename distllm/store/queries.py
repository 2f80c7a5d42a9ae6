"""SQL that people write themselves: it may only read, and it ends when its time is over."""

import math
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any, Protocol, TypeVar

from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.store.engines import postgres
from distllm.store.reads import PAGE_ROWS
from distllm.store.sqlite_query import SqliteStatement
from distllm.store.tx import Row

T = TypeVar("T")

PAGE_CHARACTERS = 1_000_000
"""A page ends early once its texts and blobs are this long: its memory is bounded, however wide the cells."""

TAKEN_SECONDS = 10.0
"""How long a page may wait to be taken. Then the rest is put aside, and the database is let go.

A pager that is left open for a night would keep the write-ahead log from being emptied, and a server from clearing
away what is dead.
"""

TABLE_ROWS = 1_000
LONGEST_IN_TABLE = 2_000
"""The rows, and the characters of a cell, that people are shown."""

LARGEST_REST = 256 * 2**20
"""The bytes of rows that are put aside at most."""

_GRACE_SECONDS = 1.0
_INTERRUPTS = 10


class Statement(Protocol):
    """One statement that runs on a connection of its own. Each call may come from another thread."""

    def begin(self, text: str) -> list[str]:
        """Begin; return the names of its columns, none if it asks nothing."""

    def rows(self, most: int, longest: int) -> list[Row]:
        """The next rows, `most` of them or so many that they are `longest` characters; none at the end."""

    def interrupt(self) -> None:
        """Let the call that goes on fail, from another thread."""

    def let_go(self) -> None:
        """Give no more rows, and be in nobody's way."""

    def close(self) -> None:
        """Close the connection."""

    def refusal(self, error: BaseException) -> DistllmError | None:
        """What people are told of an error; None for one that it does not know."""


class Query:
    """A statement that runs in a thread of its own; its time is what is spent waiting for it, and no other."""

    def __init__(self, statement: Statement, seconds: float, rows: int | None) -> None:
        self._statement = statement
        self._seconds = seconds
        self._left = seconds
        self._wanted = math.inf if rows is None else rows
        self._moving = threading.Lock()
        self._untaken = self._ended = False
        self._watch: threading.Timer | None = None
        self._aside: IO[bytes] | None = None
        self._late: Exception | None = None
        self.stuck = False
        self.names: list[str] = []

    def start(self, text: str) -> None:
        """Begin; afterwards `names` are the columns, without two that are the same."""
        names = self._within(lambda: self._statement.begin(text))
        if not names:
            raise UsageError("this query asks nothing: give a SELECT statement")
        for name in names:
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
        self._statement.interrupt()
        with self._moving:
            self._untaken = False
            if self._aside is not None:
                self._aside.close()

    def _put_aside(self) -> None:
        with self._moving:
            if not self._untaken:
                return
            self._aside = TemporaryFile()  # noqa: SIM115 - closed by `end`
            try:
                while not self._ended and (page := self._within(self._page)):
                    pickle.dump(page, self._aside)
                    if self._aside.tell() > LARGEST_REST:
                        raise DistllmError("the rows were not taken in time, and are too many to be kept: use a file")
            except Exception as error:
                self._late = error
            if not self.stuck:
                self._statement.let_go()

    def _pages_aside(self, rest: IO[bytes]) -> Iterator[list[Row]]:
        end = rest.seek(0, 2)
        rest.seek(0)
        while rest.tell() < end:
            yield pickle.load(rest)
        if self._late is not None:
            raise self._late

    def _page(self) -> list[Row]:
        if not self._wanted:
            return []
        rows = self._statement.rows(int(min(PAGE_ROWS, self._wanted)), PAGE_CHARACTERS)
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
                self._statement.interrupt()
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
        if error is not None:
            raise self._statement.refusal(error) or error from error
        return value  # type: ignore[return-value]  # None only where T allows it


@contextmanager
def open_query(place: DatabasePlace, text: str, seconds: float, rows: int | None = None) -> Iterator[Query]:
    """Run a statement that only reads, for `seconds` at most, and give `rows` at most.

    Raises UsageError for anything else, with the engine's own words, and DistllmError once the time is over.
    """
    statement: Statement
    if isinstance(place, PostgresUrl):
        statement = postgres("query").PostgresStatement(place, seconds)
    else:
        statement = SqliteStatement(place)
    query = Query(statement, seconds, rows)
    try:
        query.start(text)
        yield query
    finally:
        query.end()
        # What is stuck holds the connection, and closing it would wait.
        if not query.stuck:
            statement.close()


def in_table(value: Any, hint: str = "") -> str:
    """A value as people are shown it; `hint` says of one that is cut where all of it is."""
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST_IN_TABLE else f"{text[:LONGEST_IN_TABLE]}… ({len(text):,} characters{hint})"


def _unused(name: str, taken: list[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
