"""A look at the health of a database file; nothing is written, and a coordinator may work meanwhile."""

import shutil
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from distllm.domain.text import size_in_words
from distllm.store.filesystems import filesystem_of
from distllm.store.locks import coordinator_pid
from distllm.store.migrate import DAMAGED, revision_of, revisions
from distllm.store.sqlite import has_wal_reset_bug
from distllm.store.truths import (
    COUNTED,
    COUNTED_FROM_ROWS,
    COUNTS,
    HELD,
    IN_FLIGHT,
    JOBS_THAT_END_WRONGLY,
    PROMISES,
    VIEWS,
    WAITS_WRONGLY,
)

LONG_WAL_BYTES = 256 * 2**20
"""A write-ahead log beyond this is worth a word: something keeps it from being emptied."""

MOST_NAMED = 5
RECOUNT = "distllm db check --repair"


class Level(StrEnum):
    """How bad a finding is."""

    FINE = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about one thing; `repairable` if `repair` mends it."""

    level: Level
    about: str
    text: str
    repairable: bool = False


def check(path: Path) -> Iterator[Finding]:
    """Look at everything, the quickest first. Raises DistllmError if the file is no database of distllm's."""
    revision = revision_of(path)
    yield from _place(path)
    yield sqlite_finding(path)
    if revision != revisions()[-1]:
        text = f"{revision or 'none'}, and this program's is {revisions()[-1]}; run: distllm db upgrade"
        yield Finding(Level.FAULT, "schema", text)
        return
    yield Finding(Level.FINE, "schema", f"{revision}, the newest")
    try:
        with closing(open_to_look(path)) as connection:
            whole = yield from _structure(connection)
            if whole:
                yield from _leases(connection, path)
                yield from _content(connection)
    except sqlite3.DatabaseError as error:
        yield Finding(Level.FAULT, "structure", f"it cannot be read: {error}; {DAMAGED}")


def open_to_look(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; transactions are begun by hand."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _place(path: Path) -> Iterator[Finding]:
    lies_on = filesystem_of(path)
    if lies_on is None:
        yield Finding(Level.NOTE, "disk", "the system does not tell what kind of file system the database lies on")
    elif lies_on.shared:
        text = (
            f"{lies_on.mounted_at} is a {lies_on.kind} file system, shared with other hosts, where SQLite can lose "
            "data; keep the database on a disk of this machine (--db)"
        )
        yield Finding(Level.FAULT, "disk", text)
    else:
        free = size_in_words(shutil.disk_usage(path.resolve().parent).free)
        yield Finding(Level.FINE, "disk", f"{lies_on.kind}, a disk of this machine's own, {free} free")
    wal = path.with_name(path.name + "-wal")
    logged = wal.stat().st_size if wal.exists() else 0
    text = f"{size_in_words(path.stat().st_size)}, and {size_in_words(logged)} of write-ahead log"
    if logged > LONG_WAL_BYTES:
        text += "; a program that reads for long keeps it from being emptied: close it"
        yield Finding(Level.NOTE, "size", text)
    else:
        yield Finding(Level.FINE, "size", text)


def sqlite_finding(path: Path, numbers: tuple[int, ...] = sqlite3.sqlite_version_info) -> Finding:
    """Whether a version of SQLite can be trusted with a database that several programs use."""
    version = ".".join(map(str, numbers))
    if has_wal_reset_bug(numbers):
        text = (
            f"{version} can damage a file that two programs write at once (mended in 3.51.3); distllm's own processes "
            f"take turns by the lock {path.name}-writer, so let no other program write"
        )
        return Finding(Level.NOTE, "SQLite", text)
    return Finding(Level.FINE, "SQLite", version)


def _structure(connection: sqlite3.Connection) -> Generator[Finding, None, bool]:
    """Yield findings; return whether the rows can be trusted to be read."""
    said = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
    if said != ["ok"]:
        for line in said[:MOST_NAMED]:
            yield Finding(Level.FAULT, "structure", f"{' '.join(line.split())}; {DAMAGED}")
        return False
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    yield Finding(Level.FINE, "structure", f"SQLite finds no fault; journal mode {mode}")
    astray = connection.execute("PRAGMA foreign_key_check").fetchall()
    if astray:
        tables = ", ".join(sorted({f"{row[0]} to {row[2]}" for row in astray}))
        text = f"{len(astray)} rows point at rows that are not there ({tables}); {DAMAGED}"
        yield Finding(Level.FAULT, "references", text)
    else:
        yield Finding(Level.FINE, "references", "every row that another one points at is there")
    read_views(connection)
    yield Finding(Level.FINE, "views", "all can be read")
    return True


def read_views(connection: sqlite3.Connection) -> list[str]:
    """Read from every view that people use; return their names. Raises sqlite3.Error for one that is broken."""
    names: list[str] = [name for (name,) in connection.execute(VIEWS)]
    for name in names:
        connection.execute(f"SELECT * FROM {name} LIMIT 1").fetchall()
    return names


def _leases(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    # Asked before and after, since a coordinator may just come or go.
    live = coordinator_pid(path)
    held = connection.execute(HELD).fetchone()[0]
    in_flight = connection.execute(IN_FLIGHT).fetchone()[0]
    live = live or coordinator_pid(path)
    if live is not None:
        yield Finding(Level.FINE, "leases", f"process {live} works this database and holds {held}")
    elif held or in_flight:
        text = (
            f"no coordinator is live, but {held} prompts are leased and {in_flight} attempts open; "
            f"`distllm resume` takes them back, or run: {RECOUNT}"
        )
        yield Finding(Level.FAULT, "leases", text, repairable=True)
    else:
        yield Finding(Level.FINE, "leases", "no coordinator is live, and nothing is leased")


def _content(connection: sqlite3.Connection) -> Iterator[Finding]:
    connection.execute("BEGIN")
    try:
        wrong = list(_wrong_counters(connection))
        ended = [job for (job,) in connection.execute(JOBS_THAT_END_WRONGLY)]
        broken = [(text, [row[0] for row in connection.execute(find)]) for text, find in PROMISES.items()]
        waiting = [prompt for (prompt,) in connection.execute(WAITS_WRONGLY)]
    finally:
        connection.execute("COMMIT")
    for job, text in wrong:
        yield Finding(Level.FAULT, "counters", f"of job {job}: {text}; run: {RECOUNT}", repairable=True)
    if not wrong:
        yield Finding(Level.FINE, "counters", "agree with the prompts and results")
    if ended:
        text = f"{_listed('job', ended)} ended too early or too late; run: {RECOUNT}"
        yield Finding(Level.FAULT, "jobs", text, repairable=True)
    for text, ids in broken:
        if ids:
            yield Finding(Level.FAULT, "prompts", f"{text}: {_listed('prompt', ids)}; {DAMAGED}")
    if waiting:
        wait = "wait" if len(waiting) > 1 else "waits"
        text = f"{_listed('prompt', waiting)} {wait} for another number of parts than are unfinished"
        yield Finding(Level.FAULT, "parts", f"{text}; run: {RECOUNT}", repairable=True)
    if not any(ids for _, ids in broken):
        yield Finding(Level.FINE, "prompts", "each is in one state, and what is done has one result")


def _wrong_counters(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """The jobs whose counters differ from their rows, each with what is counted and what there is."""
    counted = _by_job(connection.execute(COUNTED).fetchall())
    there_are = _by_job(connection.execute(COUNTED_FROM_ROWS).fetchall())
    nothing = (0,) * len(COUNTS)
    for job, part in sorted(counted.keys() | there_are.keys()):
        said, found = counted.get((job, part), nothing), there_are.get((job, part), nothing)
        differ = [
            f"{name} {said[place]}, in truth {found[place]}"
            for place, name in enumerate(COUNTS)
            if said[place] != found[place]
        ]
        if differ:
            yield job, f"{'parts: ' if part else ''}{', '.join(differ)}"


def _by_job(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[int, int], tuple[int, ...]]:
    return {(row[0], row[1]): row[2:] for row in rows}


def _listed(noun: str, ids: Sequence[int]) -> str:
    named = ", ".join(str(each) for each in ids[:MOST_NAMED])
    more = f" and {len(ids) - MOST_NAMED:,} more" if len(ids) > MOST_NAMED else ""
    return f"{noun}{'s' if len(ids) > 1 else ''} {named}{more}"
