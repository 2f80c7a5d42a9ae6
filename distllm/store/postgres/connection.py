"""Connections to a server: how they are opened, what comes over them, and what is said where they break."""

import os
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg

from distllm.domain.places import PostgresUrl
from distllm.store.tx import Row, StoreError, length

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 60.0
UNDO_SECONDS = 2.0
"""How long the server is given to confirm that what was broken off is undone."""

ME = f"distllm {os.getpid()}"
"""What its connections are called, so that who looks at the server knows whose they are."""

HOST = socket.gethostname()

CHANNEL = "distllm"
"""What changes are announced on."""

# The store's statements find row after row by an index, and are to cost the same however long a table is. A planner
# that counted the rows some time ago, or never, may think otherwise; and a plan that is made while a table is new is
# kept while that grows. Reading an index into a bitmap leaves what is dead in it for the next ones to find again.
ROW_BY_ROW = dict.fromkeys(("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off")

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
