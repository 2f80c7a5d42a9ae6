"""PostgreSQL: how its statements are written, and what runs transactions and questions on it.

The functions of the store are the same as on SQLite. They do not await: each transaction runs as a whole beside the
event loop's other work, and gives the loop back wherever the server is waited for.
"""

import asyncio
import logging
import os
import re
import shlex
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Executable, ScalarSelect, Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from distllm.domain.places import PostgresUrl
from distllm.store.tx import Row, StoreError, Tx, length

logger = logging.getLogger("distllm")

T = TypeVar("T")

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 60.0
UNDO_SECONDS = 2.0
"""How long the server is given to confirm that what was broken off is undone."""

TRIES = 10
"""How often a transaction begins anew that another one was in the way of."""

ME = f"distllm {os.getpid()}"
"""What its connections are called, so that who looks at the server knows whose they are."""

HOST = socket.gethostname()

SAY_AFTER_SECONDS = 5.0
"""How long a statement waits for what another program holds, before that is said and it is tried again."""

IDLE = "5s"
"""Who is frozen within a transaction must not keep others from what that has locked."""

READERS = 4
COUNTER_ROWS = 64
"""So many rows of counters a job may have: coordinators that count at the same time hardly ever meet in one."""

LOOK_EVERY_SECONDS = 2.0
"""Who waits for changes looks so often, also if nobody has announced any."""

DUTY_EVERY_SECONDS = 0.5
_TRY_DUTY = "SELECT pg_try_advisory_lock(hashtext('distllm duty'), hashtext($1))"

CHANNEL = "distllm"

# The store's statements find row after row by an index, and are to cost the same however long a table is. A planner
# that counted the rows some time ago, or never, may think otherwise; and a plan that is made while a table is new is
# kept while that grows. Reading an index into a bitmap leaves what is dead in it for the next ones to find again.
_ROW_BY_ROW = dict.fromkeys(
    ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"
)
_WRITING = _ROW_BY_ROW | {
    "application_name": ME,
    "idle_in_transaction_session_timeout": IDLE,
    "lock_timeout": f"{SAY_AFTER_SECONDS:g}s",
}
# A page is asked for with values of all kinds, for which no one plan is good.
_ASKING = _ROW_BY_ROW | {
    "application_name": ME,
    "default_transaction_read_only": "on",
    "plan_cache_mode": "force_custom_plan",
}

# What a transaction points at may be pruned while it goes on, and what is pruned may be pointed at; what it did not
# find, another may have added meanwhile.
_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.UniqueViolationError,
)
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalClientError,
)
"""What is raised where the server cannot be reached, or has gone."""


class _Compiler(dialect.PGCompiler_asyncpg):
    """Writes for PostgreSQL what the store says in SQLAlchemy's words for SQLite."""

    def _on_conflict_target(self, clause: Any, **kw: Any) -> str:
        clause.constraint_target = None
        return super()._on_conflict_target(clause, **kw)  # type: ignore[no-any-return,no-untyped-call]  # not in the stubs

    def visit_json_each_func(self, fn: Any, **kw: Any) -> str:
        return f"json_array_elements_text(CAST({self.process(fn.clauses, **kw)} AS json))"

    def visit_in_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """What is one of a list, or of the first few, is found once, and then looked up by index."""
        chosen = self.process(binary.right, **kw)
        if _is_short(binary.right):
            return f"{self.process(binary.left, **kw)} = ANY (ARRAY{chosen})"
        return f"{self.process(binary.left, **kw)} IN {chosen}"

    def visit_min_func(self, fn: Any, **kw: Any) -> str:
        return f"{'least' if len(fn.clauses) > 1 else 'min'}({self.process(fn.clauses, **kw)})"

    def visit_max_func(self, fn: Any, **kw: Any) -> str:
        return f"{'greatest' if len(fn.clauses) > 1 else 'max'}({self.process(fn.clauses, **kw)})"


def _is_short(chosen: Any) -> bool:
    """Whether it chooses no more than its list or its limit has."""
    select = chosen.element if isinstance(chosen, ScalarSelect) else None
    if not isinstance(select, Select):
        return False
    return select._limit_clause is not None or any(_is_list(each) for each in select.get_final_froms())


def _is_list(source: Any) -> bool:
    return getattr(getattr(source, "element", None), "name", None) == "json_each"


class _Dialect(dialect.dialect):
    statement_compiler = _Compiler


_DIALECT = _Dialect()  # type: ignore[no-untyped-call]  # not in the stubs
_compiled: dict[Executable, tuple[str, list[str], dict[str, Any]]] = {}


def _sql(statement: Executable) -> tuple[str, list[str], dict[str, Any]]:
    """A statement's text, the names of its values in their order, and those values that are always the same."""
    known = _compiled.get(statement)
    if known is None:
        compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]  # Executable lacks it in the stubs
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        known = _compiled[statement] = (str(compiled), list(compiled.positiontup or ()), constants)
    return known


_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_TIME = re.compile(r"strftime\('%Y-%m-%dT%H:%M:%SZ', (.+?), 'unixepoch'\)")
_IN_ITS_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_TIME, r"""to_char(to_timestamp(\1) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""),
    # A cast rounds.
    (re.compile(r"\bCAST\((.+?) AS INTEGER\)"), r"CAST(trunc(\1) AS INTEGER)"),
    (re.compile(r"json_each\((:\w+)\)"), r"json_array_elements_text(CAST(\1 AS json))"),
    # Its planner orders the tables by itself.
    (re.compile(r"\bCROSS JOIN\b"), "JOIN"),
    (re.compile(r"\binstr\("), "strpos("),
)


def in_its_words(text: str) -> str:
    """A statement or a view that is written for SQLite, as PostgreSQL says it."""
    for pattern, replacement in _IN_ITS_WORDS:
        text = pattern.sub(replacement, text)
    return text


@cache
def _question(text: str) -> tuple[str, tuple[str, ...]]:
    """A statement with named values, and the names in the order of its numbered ones."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    return _PARAMETER.sub(number, in_its_words(text)), tuple(names)


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
        text, names, constants = _sql(statement)
        said = await_only(self._connection.execute(text, *_in_order(names, constants, values)))
        return int(said.rpartition(" ")[2]) if said[-1:].isdigit() else 0

    def many(self, statement: Executable, rows: Iterable[dict[str, Any]]) -> None:
        """Execute once for each of `rows`."""
        text, names, constants = _sql(statement)
        given = [_in_order(names, constants, row) for row in rows]
        if given:
            await_only(self._connection.executemany(text, given))

    def rows(self, statement: Executable, values: dict[str, Any]) -> list[Row]:
        """Execute, and return all rows. The order of RETURNING is arbitrary."""
        text, names, constants = _sql(statement)
        return [tuple(row) for row in await_only(self._connection.fetch(text, *_in_order(names, constants, values)))]

    def value(self, statement: Executable, values: dict[str, Any]) -> Any:
        """Execute, and return the first column of the first row, None without a row."""
        text, names, constants = _sql(statement)
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


def as_kept(value: Any) -> Any:
    """A value without the one character that its texts cannot hold."""
    return value.replace("\0", "\ufffd") if type(value) is str and "\0" in value else value


def _number(text: str) -> int | float:
    """What sums and means of whole numbers are, which PostgreSQL gives as decimals."""
    value = Decimal(text)
    if not value.is_finite() or "." in text:
        return float(value)
    return int(value) if value == value.to_integral_value() else float(value)


async def connect(url: PostgresUrl, **more: Any) -> "asyncpg.Connection":
    """A connection; StoreError if the server cannot be reached or lets nobody in."""
    try:
        settings = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS, "statement_cache_size": 1000}
        return await asyncpg.connect(url.secret, **settings | more)
    except (*AWAY, asyncpg.PostgresError, ValueError, OverflowError) as error:
        raise unreachable(url, error) from error


@asynccontextmanager
async def session(url: PostgresUrl, **more: Any) -> AsyncIterator["asyncpg.Connection"]:
    """A connection for as long as this lasts; whatever the server refuses on it is a StoreError."""
    connection = await connect(url, **more)
    try:
        await set_up(connection)
        yield connection
    except (*AWAY, asyncpg.PostgresError) as error:
        raise unreachable(url, error) from error
    finally:
        connection.terminate()


async def fetched(cursor: Any, most: int, longest: int) -> AsyncIterator[list[Row]]:
    """The rows of a cursor: at most so many at a time, and of wide ones so few that they are about as long as that."""
    count = 1
    while rows := [tuple(row) for row in await cursor.fetch(count)]:
        yield rows
        count = next_count(rows, count, most, longest)


def next_count(rows: Sequence[Row], count: int, most: int, longest: int) -> int:
    """How many rows to fetch after `rows`, for which `count` were asked: the server does not tell how wide they are."""
    widest = max([1, *map(length, rows)])
    return max(1, min(most, 2 * count, longest // widest))


async def set_up(connection: "asyncpg.Connection") -> None:
    """Have values come as they come from SQLite."""
    for name, encoder, decoder in (("numeric", str, _number), ("bool", _truth, lambda text: int(text == "t"))):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=encoder, decoder=decoder, format="text")


def _truth(value: object) -> str:
    return "true" if value else "false"


def unreachable(url: PostgresUrl, error: Exception) -> StoreError:
    """What to say of an error of the server, or of the way to it; it may pass where the server is only away."""
    said = _reason(error)
    match error:
        case asyncpg.InvalidCatalogNameError():
            remedy = f"make it on that server with: createdb {shlex.quote(url.database)}"
        case asyncpg.InvalidAuthorizationSpecificationError():
            remedy = "see the user and the password, which may be in the URL, PGPASSWORD or ~/.pgpass"
        case asyncpg.ClientConfigurationError() | asyncpg.UndefinedObjectError() | ValueError() | OverflowError():
            remedy = "see the URL given with --db"
        case asyncpg.DiskFullError() | asyncpg.OutOfMemoryError():
            return StoreError(f"the database {url} is full: {said}; make room on its server", passing=True)
        case asyncpg.TooManyConnectionsError():
            return StoreError(f"the database {url} is busy: {said}; end other programs that use it", passing=True)
        case asyncpg.LockNotAvailableError():
            return StoreError(f"the database {url} is held by another program: {said}; end it", passing=True)
        case _ if isinstance(error, AWAY):
            remedy = "see that the server runs and lets this machine in; nothing that was acknowledged is lost"
            return StoreError(f"the database {url} is out of reach: {said}; {remedy}", passing=True)
        case asyncpg.InsufficientPrivilegeError():
            remedy = "give its user the right to it"
        case _:
            remedy = "nothing was written; run `distllm resume` once the cause is mended"
    return StoreError(f"the database {url} refuses: {said}; {remedy}", passing=False)


def _reason(error: Exception) -> str:
    """What went wrong in a few words; of several addresses of one host that were tried, the first says it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        # The event loop's own words name an address, which the URL does already.
        return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror).lower()
    return " ".join(str(error).split()) or "it does not answer"


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
            self._drop()
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
            self._drop()

    def _drop(self) -> None:
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


class Questions:
    """Connections that only read, and one that hears what is announced."""

    host = HOST

    def __init__(self, url: PostgresUrl, pool: "asyncpg.Pool") -> None:
        self._url = url
        self._pool = pool
        self._ear: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._heard = 0

    async def ask(self, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All rows of a statement, each a dict by column name; StoreError if the server does not give them."""
        text, names = _question(statement)
        try:
            connection = await self._pool.acquire()
            try:
                return [dict(row) for row in await connection.fetch(text, *(values[name] for name in names))]
            finally:
                # What was cut off waits here for the server to say so.
                await self._pool.release(connection, timeout=UNDO_SECONDS)
        except (*AWAY, asyncpg.PostgresError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The pool's own error, of a connection that cannot be given back, comes in place of the cancelling.
                raise asyncio.CancelledError from error
            raise unreachable(self._url, error) from error

    async def changes(self) -> int:
        """A number that differs once somebody has announced a change, and every few seconds."""
        async with self._turn:
            if self._ear is None or self._ear.is_closed():
                await self._listen()
        return self._heard + int(time.monotonic() / LOOK_EVERY_SECONDS)

    async def _listen(self) -> None:
        ear = await connect(self._url, server_settings={"application_name": ME})
        me = weakref.ref(self)

        def hear(*_: object) -> None:
            if (asking := me()) is not None:
                asking._heard += 1

        try:
            await ear.add_listener(CHANNEL, hear)
        except BaseException as error:
            ear.terminate()
            if isinstance(error, (*AWAY, asyncpg.PostgresError)):
                raise unreachable(self._url, error) from error
            raise
        self._ear = ear
        self._heard += 1

    async def close(self) -> None:
        """Let all connections go."""
        if self._ear is not None:
            self._ear.terminate()
        self._pool.terminate()


@asynccontextmanager
async def open_questions(url: PostgresUrl) -> AsyncIterator[Questions]:
    """Connections that read and cannot write."""
    try:
        pool = await asyncpg.create_pool(
            url.secret,
            # None is opened again by the pool itself once it is lost: that would log its failures with tracebacks.
            min_size=0,
            max_size=READERS,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings=_ASKING,
            init=set_up,
        )
    except (*AWAY, asyncpg.PostgresError, ValueError, OverflowError) as error:
        raise unreachable(url, error) from error
    questions = Questions(url, pool)
    try:
        yield questions
    finally:
        await questions.close()


@asynccontextmanager
async def on_duty(url: PostgresUrl, name: str) -> AsyncIterator[asyncio.Event]:
    """Have a lock of a connection of its own, which nobody keeps who has died; the event is set if that is lost."""
    connection = await connect(url, server_settings={"application_name": f"{ME} {name}"})
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        while not await _try_duty(url, connection, name):  # noqa: ASYNC110 - a wait in SQL keeps what is old from going
            await asyncio.sleep(DUTY_EVERY_SECONDS)
        yield lost
    finally:
        connection.terminate()


async def _try_duty(url: PostgresUrl, connection: "asyncpg.Connection", name: str) -> bool:
    try:
        return bool(await connection.fetchval(_TRY_DUTY, name))
    except (*AWAY, asyncpg.PostgresError) as error:
        raise unreachable(url, error) from error
