"""A database, opened: the writer for what changes, the reader for what is asked."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from distllm.domain.errors import DistllmError
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.store.engines import postgres
from distllm.store.hearts import Heart
from distllm.store.migrate import upgrade
from distllm.store.reads import Reader, open_reader
from distllm.store.sqlite import Writer
from distllm.store.tx import Tx

T = TypeVar("T")


class _Writer(Protocol):
    async def run(self, transaction: Callable[[Tx], T]) -> T: ...

    def hurry(self, seconds: float | None) -> None: ...

    def hear_commits(self, hear: Callable[[float], object]) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Database:
    """The one way to a database: `write` runs a transaction whole, `read` asks beside it."""

    place: DatabasePlace
    read: Reader
    _writer: _Writer

    async def write(self, transaction: Callable[[Tx], T]) -> T:
        """Run `transaction` and COMMIT; raises StoreError if it did not happen.

        On PostgreSQL it may be run again from its beginning, where another one was in the way.
        """
        return await self._writer.run(transaction)

    async def heart(self, old: int | None = None) -> Heart | None:
        """Become one of several coordinators, where there may be several; None where a lock proves the one alive.

        `old` is who this process was until that was lost.
        """
        if isinstance(self.place, PostgresUrl):
            heart: Heart = await postgres("heart").open_heart(self.place, old, (self._writer, self.read))
            return heart
        return None

    def hurry(self, seconds: float | None) -> None:
        """Let no write wait for another program beyond `seconds` from now; None lets them wait as ever."""
        self._writer.hurry(seconds)

    def hear_commits(self, hear: Callable[[float], object]) -> None:
        """Have `hear` told how many seconds each COMMIT took; it must return at once, on whatever thread."""
        self._writer.hear_commits(hear)


@asynccontextmanager
async def open_database(place: DatabasePlace, *, references: bool = True) -> AsyncIterator[Database]:
    """Open the database at `place` for writing; it is made, or brought to the newest schema, if need be.

    Without `references`, SQLite does not look after them (see `Writer`).
    """
    writer = await _writer(place, references=references)
    try:
        async with open_reader(place) as reader:
            yield Database(place, reader, writer)
    finally:
        await writer.close()


async def _writer(place: DatabasePlace, *, references: bool) -> _Writer:
    if isinstance(place, PostgresUrl):
        await postgres("schema").upgrade_server(place)
        writer: _Writer = postgres("writer").PostgresWriter(place, os.getpid())
        return writer
    if not place.parent.is_dir():
        raise DistllmError(f"the folder {place.parent} does not exist: make it, or name another file with --db")
    await asyncio.to_thread(upgrade, place)
    return Writer(place, references=references)
