"""A database file, opened: the writer for what changes, the reader for what is asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from distllm.domain.errors import DistllmError
from distllm.store.migrate import upgrade
from distllm.store.reads import Reader, open_reader
from distllm.store.sqlite import Writer
from distllm.store.tx import Tx

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Database:
    """The one way to a database: `write` runs a transaction whole, `read` asks beside it."""

    path: Path
    read: Reader
    _writer: Writer

    async def write(self, transaction: Callable[[Tx], T]) -> T:
        """Run `transaction` and COMMIT; raises StoreError if it did not happen."""
        return await self._writer.run(transaction)

    def hurry(self, seconds: float | None) -> None:
        """Let no write wait for another program beyond `seconds` from now; None lets them wait as ever."""
        self._writer.hurry(seconds)

    def hear_commits(self, hear: Callable[[float], object]) -> None:
        """Have `hear` told, on the writer's thread, how many seconds each COMMIT took; it must return at once."""
        self._writer.hear_commits(hear)


@asynccontextmanager
async def open_database(path: Path, *, references: bool = True) -> AsyncIterator[Database]:
    """Open the database at `path` for writing; it is made, or brought to the newest schema, if need be.

    Without `references`, SQLite does not look after them (see `Writer`).
    """
    if not path.parent.is_dir():
        raise DistllmError(f"the folder {path.parent} does not exist: make it, or name another file with --db")
    await asyncio.to_thread(upgrade, path)
    writer = Writer(path, references=references)
    try:
        async with open_reader(path) as reader:
            yield Database(path, reader, writer)
    finally:
        await writer.close()
