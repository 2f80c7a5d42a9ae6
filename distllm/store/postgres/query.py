"""A SELECT on PostgreSQL that people have written.

It is one prepared statement in a transaction that only reads, so that neither a second statement nor any write passes.
But a function may do more than read, and a role that owns the tables may call many. So what is named like the server's
own parts is refused before it is run. Where there is a role `distllm_reader`, it is that role which asks:

    CREATE ROLE distllm_reader NOLOGIN;
    GRANT SELECT ON answers, failures, job_progress, part_progress, worker_stats TO distllm_reader;
    GRANT distllm_reader TO the_user_of_distllm;
"""

import asyncio
import json
import math
import re
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import asyncpg

from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.places import PostgresUrl
from distllm.store.postgres.connection import AWAY, connect, next_count, set_up, unreachable
from distllm.store.postgres.schema import must_be_made
from distllm.store.tx import Row

T = TypeVar("T")

READER = "distllm_reader"

_LONGEST_TIMEOUT = 2**31 - 1
_LATER_SECONDS = 1.0
"""How much later than its caller the server stops a statement, in case that the caller is no more."""

# The last ones run text that was put together, in which no name can be found. A name can also be written in numbers.
_FORBIDDEN = re.compile(
    r"(?<![\w$])(?:pg_|lo_|lo(?:read|write)\b|dblink|set_config\b|\w+_to_xml|ts_(?:stat|rewrite)\b|crosstab|connectby\b"
    r"|xpath_table\b)[\w$]*|\bU&(?=[\"'])",
    re.IGNORECASE,
)
_MAY_BECOME = f"SELECT rolname FROM pg_roles WHERE rolname = '{READER}' AND pg_has_role(oid, 'MEMBER')"
_SHOWS = "`select table_name, column_name from information_schema.columns where table_schema = 'public'`"


class PostgresStatement:
    """A statement in a transaction that only reads. Its connection lives on a thread, whoever calls."""

    def __init__(self, url: PostgresUrl, seconds: float) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distllm-server", daemon=True)
        self._thread.start()
        self._goes_on: Future[Any] | None = None
        self._connection: asyncpg.Connection | None = None
        self._cursor: Any = None
        self._count = 1
        try:
            self._wait_for(self._open(seconds))
        except BaseException:
            self.close()
            raise

    async def _open(self, seconds: float) -> None:
        await must_be_made(self._url)
        self._connection = await connect(self._url, command_timeout=None)
        await set_up(self._connection)
        await self._connection.execute("BEGIN READ ONLY")
        timeout = 0 if math.isinf(seconds) else min(int(1000 * (seconds + _LATER_SECONDS)), _LONGEST_TIMEOUT)
        await self._connection.execute(f"SET LOCAL statement_timeout = {timeout}")
        if await self._connection.fetchval(_MAY_BECOME):
            await self._connection.execute(f"SET LOCAL ROLE {READER}")

    def begin(self, text: str) -> list[str]:
        """Begin; return the names of its columns, none if it asks nothing."""
        if found := _FORBIDDEN.search(text):
            raise UsageError(
                f"this query cannot be run: {found[0]} is not for queries, nor is any other name of the server's own; "
                "ask the views"
            )
        if "\0" in text:
            raise UsageError("this query cannot be run: it has a character that PostgreSQL does not know (NUL)")
        return self._wait_for(self._begin(text))

    async def _begin(self, text: str) -> list[str]:
        assert self._connection is not None
        statement = await self._connection.prepare(text)
        names = [attribute.name for attribute in statement.get_attributes()]
        if statement.get_parameters():
            raise UsageError("this query cannot be run: nobody says what $1 is; write the value itself")
        if names:
            self._cursor = await statement.cursor()
        return names

    def rows(self, most: int, longest: int) -> list[Row]:
        """The next rows, at most so many, and of wide ones so few that they are about `longest` characters."""
        rows = self._wait_for(self._fetch(min(most, self._count)))
        self._count = next_count(rows, self._count, most, longest)
        return rows

    async def _fetch(self, count: int) -> list[Row]:
        return [tuple(map(_plain, row)) for row in await self._cursor.fetch(count)]

    def interrupt(self) -> None:
        """Let the call that goes on fail."""
        if self._goes_on is not None:
            self._goes_on.cancel()

    def let_go(self) -> None:
        """Give no more rows, and end the transaction."""
        self._wait_for(self._leave())

    async def _leave(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            # Its socket is closed in the loop's next turn.
            await asyncio.sleep(0)

    def close(self) -> None:
        """Close the connection, and end its thread."""
        self.let_go()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def refusal(self, error: BaseException) -> DistllmError | None:
        """What people are told of an error; None for one that it does not know."""
        if isinstance(error, UnicodeError):
            return UsageError("this query cannot be run: it is not valid UTF-8; only SELECT statements are")
        if isinstance(error, AWAY):
            return unreachable(self._url, error)
        if not isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
            return None
        remedy = "only SELECT statements are"
        if isinstance(error, (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)):
            remedy = f"{_SHOWS} shows what there is"
        elif isinstance(error, asyncpg.UndefinedFunctionError):
            remedy = "PostgreSQL has other functions than SQLite"
        elif isinstance(error, asyncpg.InsufficientPrivilegeError):
            remedy = f"the role {READER} may only read what it was granted, the views"
        return UsageError(f"this query cannot be run: {' '.join(str(error.args[0]).split()).rstrip('.')}; {remedy}")

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        goes_on = self._goes_on = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            value: T = goes_on.result()
        finally:
            self._goes_on = None
        return value


def _plain(value: Any) -> Any:
    """A value as SQLite would give it: what has no type there is a text."""
    match value:
        case bool():
            return int(value)
        case float() if math.isnan(value):
            return None
        case None | int() | float() | str() | bytes():
            return value
        case list() | dict() | tuple():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
