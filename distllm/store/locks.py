"""Locks on files beside the database: they end with their process, also by SIGKILL."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class FileLock:
    """An exclusive `flock` on `path`, which is made if it is missing and never removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free, and leave this process's id in the file for people to read."""
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def acquire(self) -> None:
        """Wait for the lock as long as it takes."""
        self._lock(fcntl.LOCK_EX)

    def release(self) -> None:
        """Give the lock up; without effect if it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def is_held(self) -> bool:
        """Whether any process holds the lock now."""
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def holder(self) -> int | None:
        """The id of the process that took the lock last; it may have ended since."""
        try:
            return int(self._path.read_text() or 0) or None
        except (OSError, ValueError):
            return None

    def _lock(self, how: int) -> bool:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._file = file
        # For people to read; a full disk must not keep anybody from the lock. Not written again by each write to the
        # database: file systems flush what is truncated and written.
        me = str(os.getpid()).encode()
        with suppress(OSError):
            if os.pread(file, len(me) + 1, 0) != me:
                os.ftruncate(file, 0)
                os.pwrite(file, me, 0)
        return True

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def coordinator_lock(path: Path) -> FileLock:
    """The lock that proves a coordinator of the database at `path` alive; free the moment its process ends."""
    return FileLock(path.with_name(path.name + "-coordinator"))


def coordinator_pid(path: Path) -> int | None:
    """The process that works the database at `path` now, None if there is none."""
    lock = coordinator_lock(path)
    return lock.holder() if lock.is_held() else None


def service_lock(path: Path) -> FileLock:
    """The lock of the one service that the database at `path` may have, also while it waits to be the coordinator."""
    return FileLock(path.with_name(path.name + "-service"))
