"""A look at the health of a database; nothing is written, and a coordinator may work meanwhile."""

import shutil
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.domain.text import size_in_words
from distllm.store.engines import postgres
from distllm.store.filesystems import filesystem_of
from distllm.store.findings import MOST_NAMED, Ask, Finding, Level, content, leases, read_views, schema
from distllm.store.locks import coordinator_pid
from distllm.store.migrate import DAMAGED, revision_of
from distllm.store.sqlite import has_wal_reset_bug
from distllm.store.truths import VIEWS
from distllm.store.tx import Row

LONG_WAL_BYTES = 256 * 2**20
"""A write-ahead log beyond this is worth a word: something keeps it from being emptied."""


def check(place: DatabasePlace) -> Iterator[Finding]:
    """Look at everything, the quickest first. Raises DistllmError if it is no database of distllm's."""
    if isinstance(place, PostgresUrl):
        yield from postgres("checkup").check_server(place)
    else:
        yield from _check_file(place)


def _check_file(path: Path) -> Iterator[Finding]:
    revision = revision_of(path)
    yield from _place(path)
    yield sqlite_finding(path)
    finding = schema(revision)
    yield finding
    if finding.level is Level.FAULT:
        return
    try:
        with closing(open_to_look(path)) as connection:
            whole = yield from _structure(connection)
            if whole:
                yield leases(_asking(connection), lambda: _live(path))
                connection.execute("BEGIN")
                yield from content(_asking(connection))
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
    yield read_views(_asking(connection), VIEWS)
    return True


def look_at_views(connection: sqlite3.Connection) -> None:
    """Read from every view. Raises sqlite3.Error for one that is broken."""
    read_views(_asking(connection), VIEWS)


def _asking(connection: sqlite3.Connection) -> Ask:
    def ask(statement: str) -> list[Row]:
        return connection.execute(statement).fetchall()

    return ask


def _live(path: Path) -> list[int]:
    pid = coordinator_pid(path)
    return [] if pid is None else [pid]
