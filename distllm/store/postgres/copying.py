"""Moving a whole database from a file of SQLite to PostgreSQL, in steps that a kill at any moment cannot harm.

How far a copy is, is told by what is there: each table is copied in the order of its keys, so that the next step
begins after the highest one. Until all is there and compared, the target's schema goes by a name that no program opens.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Column, Table

from distllm.domain.errors import DistllmError
from distllm.domain.places import PostgresUrl
from distllm.store.migrate import DAMAGED, revisions, upgrade
from distllm.store.postgres.connection import as_kept, fetched, session
from distllm.store.postgres.schema import COPYING, found_revision, upgrade_server
from distllm.store.sqlite import open_for_writing, store_error, writer_lock
from distllm.store.tables import metadata, prompts
from distllm.store.tx import Row, length

ROWS_AT_A_TIME = 5_000
CHARACTERS_AT_A_TIME = 4_000_000
"""What is sent in one transaction at most; a single row may be longer."""

WAIT_SECONDS = 10.0
"""How long it waits for a program that writes, and for the server to notice that an earlier copy has been killed."""

TABLES: Sequence[Table] = metadata.sorted_tables
_IN_BYTES = ' COLLATE "C"'
_ANEW = "make the target anew with dropdb and createdb, then copy again"

OnStep = Callable[[str, int, int], None]
"""Told what is done ("copied", "compared"), and with how many rows of how many."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How many rows each table of the copy has; `changed` is false if it was whole before."""

    rows: Mapping[str, int]
    changed: bool


@dataclass(frozen=True, slots=True)
class _Pass:
    """Rows of a table that are copied one after another in the order of its key; all that they point at is there."""

    table: Table
    where: str = "TRUE"

    @property
    def key(self) -> list[Column[Any]]:
        return list(self.table.primary_key)


async def copy_database(path: Path, url: PostgresUrl, on_step: OnStep) -> Copied:
    """Copy the database at `path` into an empty one, or go on with a copy that was broken off.

    Safe only under the coordinator's lock; whoever else wants to write to the source waits meanwhile. Raises
    DistllmError for a target that holds anything else, and where rows differ afterwards.
    """
    await asyncio.to_thread(upgrade, path)
    with _held(path) as source:
        total = sum(_counted(source).values())
        async with _alone(url) as target:
            if not await _begin(target, url):
                differ = await _differences(source, target, total, on_step)
                if differ:
                    raise DistllmError(f"{url} holds other data than {path}: make an empty database with createdb")
                return Copied(_counted(source), changed=False)
            await _copy(source, target, total, on_step)
            differ = await _differences(source, target, total, on_step)
            if differ:
                raise DistllmError(
                    f"{url} differs from {path} in {', '.join(differ)}: one of them was written since the copy "
                    f"began; {_ANEW}"
                )
            await _end(source, target)
            return Copied(_counted(source), changed=True)


@contextmanager
def _held(path: Path) -> Iterator[sqlite3.Connection]:
    """The source, to which nobody writes as long as this lasts."""
    lock, began = writer_lock(path), time.monotonic()
    try:
        with lock:
            connection = open_for_writing(path)
            connection.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000:.0f}")
            # Another program may have written what is no UTF-8.
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise store_error(path, error, time.monotonic() - began) from error
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise DistllmError(f"{path} cannot be read: {error}; {DAMAGED}") from error
    finally:
        with lock:
            connection.close()


@asynccontextmanager
async def _alone(url: PostgresUrl) -> AsyncIterator["asyncpg.Connection"]:
    async with session(url) as connection:
        await connection.execute(f"SET lock_timeout = {WAIT_SECONDS * 1000:.0f}")
        try:
            await connection.execute("SELECT pg_advisory_lock(hashtext('distllm'), hashtext('copy'))")
        except asyncpg.LockNotAvailableError as error:
            raise DistllmError(f"another copy into {url} is under way: wait for its end") from error
        yield connection


async def _begin(target: "asyncpg.Connection", url: PostgresUrl) -> bool:
    """Make the tables, and let nobody else use them; false if there are rows that no copy is under way for."""
    mark = f"{COPYING} {revisions()[-1]}"
    there_is = await found_revision(target)
    if there_is == mark:
        return True
    if there_is is not None and there_is.startswith(COPYING):
        raise DistllmError(f"the copy in {url} was begun by another version of distllm; {_ANEW}")
    await upgrade_server(url)
    async with target.transaction():
        await target.execute(f"LOCK TABLE {', '.join(table.name for table in TABLES)} IN SHARE MODE")
        for table in TABLES:
            if await target.fetchval(f"SELECT EXISTS (SELECT FROM {table.name})"):
                return False
        await target.execute("UPDATE alembic_version SET version_num = $1", mark)
    return True


async def _copy(source: sqlite3.Connection, target: "asyncpg.Connection", total: int, on_step: OnStep) -> None:
    done = sum([await target.fetchval(f"SELECT count(*) FROM {table.name}") for table in TABLES])
    try:
        for each in _passes(source):
            names = [column.name for column in each.table.columns]
            for rows in _steps(source, each, await _last(target, each)):
                await target.copy_records_to_table(each.table.name, records=rows, columns=names)
                done += len(rows)
                on_step("copied", done, total)
    except asyncpg.IntegrityConstraintViolationError as error:
        raise DistllmError(
            f"{each.table.name} cannot be copied: {error}; see that `distllm db check` finds no fault in the source, "
            f"and {_ANEW}"
        ) from error


def _passes(source: sqlite3.Connection) -> Iterator[_Pass]:
    for table in TABLES:
        if table is prompts:
            # What a prompt is a part of has a higher level.
            for (level,) in source.execute("SELECT DISTINCT level FROM prompts ORDER BY level DESC").fetchall():
                yield _Pass(table, f"level = {level}")
        else:
            yield _Pass(table)


async def _last(target: "asyncpg.Connection", each: _Pass) -> Row | None:
    """The key of the row that was copied last; texts are in the order of their bytes, as SQLite has them."""
    order = ", ".join(f"{column.name}{_IN_BYTES if column.type.python_type is str else ''} DESC" for column in each.key)
    last = f"SELECT {_listed(each.key)} FROM {each.table.name} WHERE {each.where} ORDER BY {order} LIMIT 1"
    row = await target.fetchrow(last)
    return None if row is None else tuple(row)


def _steps(source: sqlite3.Connection, each: _Pass, after: Row | None) -> Iterator[list[Row]]:
    key = _listed(each.key)
    follows = "" if after is None else f" AND ({key}) > ({', '.join('?' * len(after))})"
    rows: list[Row] = []
    size = 0
    for row in source.execute(f"{_all_of(each.table)} WHERE {each.where}{follows} ORDER BY {key}", after or ()):
        rows.append(tuple(map(as_kept, row)))
        size += length(row)
        if len(rows) == ROWS_AT_A_TIME or size >= CHARACTERS_AT_A_TIME:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _listed(columns: Iterable[Column[Any]]) -> str:
    return ", ".join(f'"{column.name}"' for column in columns)


def _all_of(table: Table) -> str:
    return f"SELECT {_listed(table.columns)} FROM {table.name}"


def _counted(source: sqlite3.Connection) -> dict[str, int]:
    return {table.name: source.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0] for table in TABLES}


class _Sum:
    """A number that rows in whatever order add up to, and how many they are."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            # What a float is written as is that float and no other.
            self._sum += int.from_bytes(blake2b(repr(row).encode(), digest_size=16).digest(), "big")
            self.rows += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sum) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]  # it changes


async def _differences(
    source: sqlite3.Connection, target: "asyncpg.Connection", total: int, on_step: OnStep
) -> list[str]:
    """The tables that do not have the same rows on both sides."""
    differ = []
    done = 0
    for table in TABLES:
        here, there = _Sum(), _Sum()
        async with target.transaction(readonly=True):
            async for rows in fetched(await target.cursor(_all_of(table)), ROWS_AT_A_TIME, CHARACTERS_AT_A_TIME):
                there.add(rows)
                on_step("compared", done + there.rows // 2, total)
        for rows in _steps(source, _Pass(table), None):
            here.add(rows)
            on_step("compared", done + (here.rows + there.rows) // 2, total)
        done += here.rows
        if here != there:
            differ.append(table.name)
    return differ


async def _end(source: sqlite3.Connection, target: "asyncpg.Connection") -> None:
    """Let programs use the copy; ids that were given once are not given again."""
    given = dict(source.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    async with target.transaction():
        for table in TABLES:
            sequence = await target.fetchval(_SEQUENCE, table.name) if "id" in table.columns else None
            highest = await target.fetchval(f"SELECT max(id) FROM {table.name}") if sequence else None
            last = max(highest or 0, given.get(table.name, 0))
            if last:
                await target.execute("SELECT setval($1::text::regclass, $2)", sequence, last)
        await target.execute("UPDATE alembic_version SET version_num = $1", revisions()[-1])
        await target.execute("ANALYZE")


_SEQUENCE = "SELECT pg_get_serial_sequence($1, 'id')"
