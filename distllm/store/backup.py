"""A copy of a database that is whole, whatever is written to it meanwhile."""

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from distllm.domain.errors import DistllmError, UsageError
from distllm.store.checkup import look_at_views, open_to_look
from distllm.store.locks import coordinator_pid
from distllm.store.migrate import revision_of

PAGES_AT_A_TIME = 512
_BESIDE = ("-wal", "-shm", "-journal", "-writer", "-coordinator")

OnCopied = Callable[[int, int], None]
"""Told how many bytes of how many have been copied."""


def back_up(path: Path, target: Path, on_copied: OnCopied) -> int:
    """Copy the database at `path` to `target`, which appears whole and checked or not at all; return its bytes.

    One snapshot is copied, so that what a coordinator commits meanwhile neither enters the copy nor makes it
    begin again. An earlier copy at `target` is replaced. Raises UsageError where that is no place for a copy,
    DistllmError where it cannot be made.
    """
    _refuse(path, target)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        os.close(descriptor)
        copy = Path(name)
        try:
            _copy(path, copy, on_copied)
            _check(copy)
            copy.chmod(path.stat().st_mode & 0o777)
            copy.replace(target)
        finally:
            for leftover in (copy, *(copy.with_name(copy.name + end) for end in _BESIDE)):
                leftover.unlink(missing_ok=True)
        _keep_name(target.parent)
        return target.stat().st_size
    except (sqlite3.Error, OSError) as error:
        raise DistllmError(f"the copy {target} could not be made: {error}; nothing was left there") from error


def _refuse(path: Path, target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist: make it, or name another file")
    live = {path.resolve(), *(path.resolve().with_name(path.name + end) for end in _BESIDE)}
    if target.resolve() in live or (target.exists() and target.samefile(path)):
        raise UsageError(f"{target} is the database itself: name another file for the copy")
    if not target.exists():
        return
    if not target.is_file():
        raise UsageError(f"{target} is no file: name a file for the copy")
    if coordinator_pid(target) is not None or target.with_name(target.name + "-wal").exists():
        raise UsageError(f"{target} is a database in use: name another file for the copy")
    try:
        earlier = target.stat().st_size == 0 or revision_of(target) is not None
    except DistllmError:
        earlier = False
    if not earlier:
        raise UsageError(f"{target} exists and is no earlier copy: name another file")


def _copy(path: Path, copy: Path, on_copied: OnCopied) -> None:
    with closing(open_to_look(path)) as source, closing(sqlite3.connect(copy, isolation_level=None)) as target:
        page = source.execute("PRAGMA page_size").fetchone()[0]
        target.execute("PRAGMA synchronous=FULL")
        target.execute("PRAGMA fullfsync=ON")
        # Reading once holds the snapshot from here on.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(
            target,
            pages=PAGES_AT_A_TIME,
            progress=lambda _, left, pages: on_copied(page * (pages - left), page * pages),
        )
        source.execute("COMMIT")
        # The copy is one file, and can be read where nothing can be written.
        target.execute("PRAGMA journal_mode=DELETE")


def _check(copy: Path) -> None:
    with closing(open_to_look(copy)) as connection:
        said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if said != "ok":
            raise sqlite3.DatabaseError(f"the database is damaged ({said})")
        look_at_views(connection)


def _keep_name(folder: Path) -> None:
    """Make the new name as durable as what it names, where the file system lets folders be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
