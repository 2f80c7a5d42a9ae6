"""Giving back to the disk what a database has free. SQLite's own VACUUM does it, which is whole or not at all."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distllm.domain.errors import DistllmError
from distllm.domain.text import size_in_words
from distllm.store.checkup import open_to_look
from distllm.store.sqlite import open_for_writing, store_error, writer_lock

STEPS_BETWEEN = 10_000
"""How many of SQLite's steps pass between two calls of `on_working`: some milliseconds."""


WAIT_SECONDS = 10
"""How long it waits for another program that writes, or reads."""


@dataclass(frozen=True, slots=True)
class Space:
    """The bytes that a database file has, and how many of them are free: used again before the file grows."""

    whole: int
    free: int


def space_of(path: Path) -> Space:
    """How much of a database is free, what is still in the write-ahead log included."""
    with closing(open_to_look(path)) as connection:
        page, pages, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
    return Space(page * pages, page * free)


def vacuum(path: Path, on_working: Callable[[], None]) -> bool:
    """Write the database anew, without what is free in it; false if the file is smaller only once a reader is gone.

    Safe only under the coordinator's lock, since nothing else can be written meanwhile. Killed at any moment it
    leaves the database as it was, or as it is to be. Raises DistllmError where there is no room for a second copy,
    StoreError where it cannot be done, KeyboardInterrupt where that was raised meanwhile.
    """
    space = space_of(path)
    # It is copied to a temporary file, and from there through the write-ahead log.
    needed, there_is = 2 * (space.whole - space.free), shutil.disk_usage(path.resolve().parent).free
    if there_is < needed:
        raise DistllmError(
            f"to shrink {path}, up to {size_in_words(needed)} of disk are needed for a time, and "
            f"{size_in_words(there_is)} are free: make room"
        )

    def work() -> int:
        on_working()
        return 0

    began = time.monotonic()
    try:
        with writer_lock(path), closing(open_for_writing(path)) as connection:
            connection.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000}")
            connection.set_progress_handler(work, STEPS_BETWEEN)
            connection.execute("VACUUM")
            connection.set_progress_handler(None, 0)
            busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not busy
    except (sqlite3.Error, OSError) as error:
        # An exception in the handler reaches nobody but SQLite, which ends.
        if "interrupted" in str(error):
            raise KeyboardInterrupt from error
        raise store_error(path, error, time.monotonic() - began) from error
