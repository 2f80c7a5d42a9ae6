"""What runs transactions on PostgreSQL.

The functions of the store are the same as on SQLite. They do not await: each transaction runs as a whole beside the
event loop's other work, and gives the loop back wherever the server is waited for.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Executable
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from distllm.domain.places import PostgresUrl
from distllm.store.postgres.connection import (
    AWAY,
    CHANNEL,
    CONNECT_SECONDS,
    HOST,
    ME,
    ROW_BY_ROW,
    STATEMENT_SECONDS,
    UNDO_SECONDS,
    as_kept,
    connect,
    set_up,
    unreachable,
)
from distllm.store.postgres.words import statement_of
from distllm.store.tx import Row, StoreError, Tx

logger = logging.getLogger("distllm")

T = TypeVar("T")

TRIES = 10
"""How often a transaction begins anew that another one was in the way of."""

SAY_AFTER_SECONDS = 5.0
"""How long a statement waits for what another program holds, before that is said and it is tried again."""

IDLE = "5s"
"""Who is frozen within a transaction must not keep others from what that has locked."""

COUNTER_ROWS = 64
"""So many rows of counters a job may have: coordinators that count at the same time hardly ever meet in one."""

_WRITING = ROW_BY_ROW | {
    "application_name": ME,
    "idle_in_transaction_session_timeout": IDLE,
    "lock_timeout": f"{SAY_AFTER_SECONDS:g}s",
}

# What a transaction points at may be pruned while it goes on, and what is pruned may be pointed at; what it did not
# find, another may have added meanwhile.
_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.UniqueViolationError,
)

# Two that differ and have one number only keep each other waiting.
_TRY_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('distllm ' || $1), $2)"


class PostgresTx(Tx):
    """One transaction on a connection; waits by giving way to the event loop."""

    host = HOST
    only_one = False

    def __init__(self, connection: "asyncpg.Connection", counters: int) -> None:
        self._connection = connection
        self.counters = counters

    def run(self, statement: Executable, values: dict[str, Any]) -> int:
        """Execute, and return how many rows changed."""
        text, names, constants = statement_of(statement)
        said = await_only(self._connection.execute(text, *_in_order(names, constants, values)))
        return int(said.rpartition(" ")[2]) if said[-1:].isdigit() else 0

    def many(self, statement: Executable, rows: Iterable[dict[str, Any]]) -> None:
        """Execute once for each of `rows`."""
        text, names, constants = statement_of(statement)
        given = [_in_order(names, constants, row) for row in rows]
        if given:
            await_only(self._connection.executemany(text, given))

    def rows(self, statement: Executable, values: dict[str, Any]) -> list[Row]:
        """Execute, and return all rows. The order of RETURNING is arbitrary."""
        text, names, constants = statement_of(statement)
        return [tuple(row) for row in await_only(self._connection.fetch(text, *_in_order(names, constants, values)))]

    def value(self, statement: Executable, values: dict[str, Any]) -> Any:
        """Execute, and return the first column of the first row, None without a row."""
        text, names, constants = statement_of(statement)
        return await_only(self._connection.fetchval(text, *_in_order(names, constants, values)))

    def alone(self, what: str) -> None:
        """Wait until no other transaction is alone with `what`, and have it until this one ends."""
        await_only(self._connection.execute("SELECT pg_advisory_xact_lock(hashtext('distllm'), hashtext($1))", what))

    def try_alone(self, what: str, which: int) -> bool:
        """Be alone with one of several things until this transaction ends; false if another one is."""
        return bool(await_only(self._connection.fetchval(_TRY_ALONE, what, which % 2**31)))

    def announce(self) -> None:
        """Wake those who watch this database, once this is committed."""
        await_only(self._connection.execute(f"NOTIFY {CHANNEL}"))


def _in_order(names: Iterable[str], constants: Mapping[str, Any], values: Mapping[str, Any]) -> list[Any]:
    return [as_kept(values[name] if name in values else constants[name]) for name in names]


class PostgresWriter:
    """The one writing connection of a process, opened by the first transaction, and again when it was lost."""

    def __init__(self, url: PostgresUrl, counters: int) -> None:
        self._url = url
        self._counters = counters % COUNTER_ROWS
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._closed = False
        self._wait_until: float | None = None
        self._hear_commit: Callable[[float], object] = lambda seconds: None

    async def run(self, transaction: Callable[[Tx], T]) -> T:
        """Run `transaction`; return after its COMMIT. Raises StoreError if it did not happen, or nobody knows."""
        if self._closed:
            raise StoreError(f"the database {self._url} is closed", passing=False)
        try:
            async with asyncio.timeout_at(self._wait_until), self._turn:
                return await self._transact(transaction)
        except TimeoutError as error:
            raise unreachable(self._url, error) from error

    async def _transact(self, transaction: Callable[[Tx], T]) -> T:
        began, said = time.monotonic(), False
        tries = 0
        while True:
            try:
                return await self._once(transaction)
            except asyncpg.LockNotAvailableError as error:
                if time.monotonic() - began >= STATEMENT_SECONDS:
                    raise unreachable(self._url, error) from error
                if not said:
                    said = True
                    logger.warning("%s is held by another program; waiting up to %g s", self._url, STATEMENT_SECONDS)
            except _AGAIN as error:
                tries += 1
                if tries == TRIES:
                    raise unreachable(self._url, error) from error
            except asyncpg.PostgresError as error:
                raise unreachable(self._url, error) from error

    async def _once(self, transaction: Callable[[Tx], T]) -> T:
        connection = await self._connected()
        try:
            await connection.execute("BEGIN")
            value: T = await greenlet_spawn(transaction, PostgresTx(connection, self._counters))
            began = time.monotonic()
            await connection.execute("COMMIT")
        except AWAY as error:
            self.drop()
            raise unreachable(self._url, error) from error
        except BaseException:
            await self._undo(connection)
            raise
        self._hear_commit(time.monotonic() - began)
        return value

    async def _undo(self, connection: "asyncpg.Connection") -> None:
        try:
            # A server that has fallen silent does not answer that either; it undoes by itself what is cut off.
            async with asyncio.timeout(UNDO_SECONDS):
                await connection.execute("ROLLBACK")
        except (*AWAY, asyncpg.PostgresError, asyncio.CancelledError):
            self.drop()

    def drop(self) -> None:
        """Give the connection up: a transaction that waits on it is told that it is lost, the next opens another."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> "asyncpg.Connection":
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, server_settings=_WRITING)
            await set_up(self._connection)
        return self._connection

    def hurry(self, seconds: float | None) -> None:
        """Let no write wait beyond `seconds` from now; None lets them wait as ever."""
        if seconds is None:
            self._wait_until = None
            return
        end = asyncio.get_running_loop().time() + seconds
        self._wait_until = end if self._wait_until is None else min(self._wait_until, end)

    def hear_commits(self, hear: Callable[[float], object]) -> None:
        """Have `hear` told how many seconds each COMMIT took; it must return at once."""
        self._hear_commit = hear

    async def close(self) -> None:
        """Finish what was asked for, and close."""
        self._closed = True
        async with self._turn:
            if self._connection is not None:
                with suppress(*AWAY, asyncpg.PostgresError):
                    await self._connection.close(timeout=CONNECT_SECONDS)
