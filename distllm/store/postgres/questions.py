"""What is asked of PostgreSQL beside the transactions."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

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
    connect,
    set_up,
    unreachable,
)
from distllm.store.postgres.words import question_of

READERS = 4

LOOK_EVERY_SECONDS = 2.0
"""Who waits for changes looks so often, also if nobody has announced any."""

# A page is asked for with values of all kinds, for which no one plan is good.
_ASKING = ROW_BY_ROW | {
    "application_name": ME,
    "default_transaction_read_only": "on",
    "plan_cache_mode": "force_custom_plan",
}


class Questions:
    """Connections that only read, and one that hears what is announced."""

    host = HOST

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url
        self._pool: asyncpg.Pool | None = None
        self._ear: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._heard = 0

    async def ask(self, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All rows of a statement, each a dict by column name; StoreError if the server does not give them."""
        text, names = question_of(statement)
        try:
            pool = await self._readers()
            connection = await pool.acquire()
            try:
                return [dict(row) for row in await connection.fetch(text, *(values[name] for name in names))]
            finally:
                # What was cut off waits here for the server to say so.
                await pool.release(connection, timeout=UNDO_SECONDS)
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

    def drop(self) -> None:
        """Give all connections up: who waits on one is told that it is lost, and the next opens another."""
        if self._ear is not None:
            self._ear.terminate()
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def _readers(self) -> "asyncpg.Pool":
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._url.secret,
                # None is opened again by the pool itself once it is lost: that would log its failures with tracebacks.
                min_size=0,
                max_size=READERS,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                server_settings=_ASKING,
                init=set_up,
            )
        return self._pool


@asynccontextmanager
async def open_questions(url: PostgresUrl) -> AsyncIterator[Questions]:
    """Connections that read and cannot write."""
    questions = Questions(url)
    try:
        yield questions
    finally:
        questions.drop()
