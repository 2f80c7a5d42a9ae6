"""SQLite: one thread that writes, readers beside it, and what keeps both safe.

All writes of a process go through one connection on one thread; a transaction is one function run there
whole. On versions with the WAL-reset bug, processes also take turns by a lock on a file, around every
transaction and checkpoint.
"""

import asyncio
import logging
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Executable
from sqlalchemy.dialects import sqlite as dialect

from distllm.domain.text import size_in_words
from distllm.store.locks import FileLock
from distllm.store.migrate import BUSY_TIMEOUT_SECONDS
from distllm.store.tx import Row, StoreError, Tx

TRY_SECONDS = 1.0
"""How long one try to begin a write waits in SQLite, where nothing can stop it."""

SAY_AFTER_SECONDS = 5.0

KEPT_LOG_BYTES = 16 * 2**20
"""What stays of the write-ahead log on the disk once it begins anew; SQLite empties it before it is longer."""

LONGEST_LOG_BYTES = 2**30
"""How long the log may grow while a program that reads keeps it from being emptied."""

logger = logging.getLogger("distllm")

T = TypeVar("T")

_DIALECT = dialect.dialect(paramstyle="named")
_compiled: dict[Executable, tuple[str, dict[str, Any]]] = {}


def has_wal_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether two connections that write at once can damage a WAL database (fixed in 3.51.3)."""
    return not (version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45))


def writer_lock(path: Path) -> AbstractContextManager[object]:
    """What a process holds around each write to the database at `path`."""
    return FileLock(path.with_name(path.name + "-writer")) if has_wal_reset_bug() else nullcontext()


class SqliteTx(Tx):
    """One transaction of the one writer, which is alone with everything."""

    # One coordinator at a time moves prompts, so all share one row of counters a job.
    counters = 0
    host = ""
    only_one = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: Executable, values: dict[str, Any]) -> int:
        """Execute, and return how many rows changed."""
        return self._execute(statement, values).rowcount

    def many(self, statement: Executable, rows: Iterable[dict[str, Any]]) -> None:
        """Execute once for each of `rows`."""
        text, constants = _sql(statement)
        self._connection.executemany(text, [constants | row for row in rows] if constants else list(rows))

    def rows(self, statement: Executable, values: dict[str, Any]) -> list[Row]:
        """Execute, and return all rows. The order of RETURNING is arbitrary."""
        return self._execute(statement, values).fetchall()

    def value(self, statement: Executable, values: dict[str, Any]) -> Any:
        """Execute, and return the first column of the first row, None without a row."""
        row = self._execute(statement, values).fetchone()
        return None if row is None else row[0]

    def alone(self, what: str) -> None:
        """Nothing to wait for."""

    def try_alone(self, what: str, which: int) -> bool:
        """As it is with everything."""
        return True

    def announce(self) -> None:
        """Nothing to do: the file's change counter is watched."""

    def _execute(self, statement: Executable, values: dict[str, Any]) -> sqlite3.Cursor:
        text, constants = _sql(statement)
        return self._connection.execute(text, constants | values if constants else values)


def _sql(statement: Executable) -> tuple[str, dict[str, Any]]:
    known = _compiled.get(statement)
    if known is None:
        compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]  # Executable lacks it in the stubs
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        known = _compiled[statement] = (str(compiled), constants)
    return known


class Writer:
    """The thread that owns the one writing connection. Opened by the first transaction.

    Without `references` SQLite does not see to it that what a row points at is there: it would look through all
    prompts for each document that goes.
    """

    def __init__(self, path: Path, *, references: bool = True) -> None:
        self._path = path
        self._references = references
        self._lock = writer_lock(path)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._wait_until = math.inf
        self._hear_commit: Callable[[float], object] = lambda seconds: None
        self._thread = threading.Thread(target=self._loop, name="distllm-writer", daemon=True)
        self._thread.start()

    async def run(self, transaction: Callable[[Tx], T]) -> T:
        """Run `transaction` on the thread; return after its COMMIT. Raises StoreError if it did not happen."""
        if self._closed:
            raise StoreError(f"the database {self._path} is closed", passing=False)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(value)  # type: ignore[arg-type]  # None only where T allows it
            else:
                future.set_exception(error)

        def work() -> None:
            try:
                value = self._transact(transaction)
            except BaseException as error:
                loop.call_soon_threadsafe(settle, None, error)
            else:
                loop.call_soon_threadsafe(settle, value, None)

        self._work.put(work)
        return await future

    def hurry(self, seconds: float | None) -> None:
        """Let no write wait for another program beyond `seconds` from now; None lets them wait as ever."""
        self._wait_until = math.inf if seconds is None else min(self._wait_until, time.monotonic() + seconds)

    def hear_commits(self, hear: Callable[[float], object]) -> None:
        """Have `hear` told, on the thread, how many seconds each COMMIT took; it must return at once."""
        self._hear_commit = hear

    async def close(self) -> None:
        """Finish what was asked for, checkpoint and close."""
        self._closed = True
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        if self._connection is not None:
            # Where the folder is gone no lock can be taken, and there is nobody to wait for.
            with suppress(OSError), self._lock:
                # Statistics can wait for the next time, where another program holds the file.
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA optimize")
                self._connection.close()
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = open_for_writing(self._path)
        if self._references:
            connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _transact(self, transaction: Callable[[Tx], T]) -> T:
        began = time.monotonic()
        said = False
        try:
            while True:
                # Free between the tries, so that other processes of distllm do not wait for this one too.
                with self._lock:
                    connection = self._connection = self._connection or self._open()
                    self._bound_log(connection)
                    if self._begin(connection, began):
                        return self._commit(connection, transaction)
                if not said and time.monotonic() - began >= SAY_AFTER_SECONDS:
                    said = True
                    logger.warning(
                        "%s is held by another program; waiting up to %g s", self._path, BUSY_TIMEOUT_SECONDS
                    )
        except (sqlite3.Error, OSError) as error:
            raise store_error(self._path, error, time.monotonic() - began) from error

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Empty the log if it is too long; StoreError where a reader is in the way.

        Who must go may write all the same: what has ended then is worth more than the room.
        """
        log = self._path.with_name(self._path.name + "-wal")
        length = log.stat().st_size if log.exists() else 0
        if length <= LONGEST_LOG_BYTES or self._wait_until < math.inf:
            return
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StoreError(
                f"the write-ahead log of {self._path} has {size_in_words(length)}, and a program that has begun to "
                "read the database and does not end keeps it from being emptied: close that program",
                passing=True,
            )

    def _begin(self, connection: sqlite3.Connection, began: float) -> bool:
        """Begin; False where another program holds the file and there is time for another try."""
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= min(began + BUSY_TIMEOUT_SECONDS, self._wait_until):
                raise
            return False
        return True

    def _commit(self, connection: sqlite3.Connection, transaction: Callable[[Tx], T]) -> T:
        try:
            value = transaction(SqliteTx(connection))
            began = time.monotonic()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._hear_commit(time.monotonic() - began)
        return value


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection that keeps what is committed, also when the power goes; references are not looked after."""
    connection = sqlite3.connect(
        path,
        timeout=TRY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    for setting in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", f"journal_size_limit={KEPT_LOG_BYTES}"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def store_error(path: Path, error: Exception, seconds: float) -> StoreError:
    said = str(error)
    passing = False
    if "locked" in said:
        passing = True
        remedy = f"another program has held it for {seconds:.0f} s: close it"
    elif "full" in said or "No space" in said:
        passing = True
        remedy = "make room"
    elif "readonly" in said or isinstance(error, PermissionError):
        remedy = "give yourself the right to write it and its folder"
    elif "unable to open" in said:
        remedy = "its folder must exist and be writable"
    else:
        remedy = "nothing was written; run `distllm resume` once the cause is mended"
    return StoreError(f"the database {path} could not be written: {said}; {remedy}", passing=passing)
