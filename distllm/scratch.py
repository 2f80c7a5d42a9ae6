"""Files of a moment, held by a lock that ends with its process: so what a killed one has left can be told, and go."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

_PREFIX = "distllm-"
_LOCK = "held"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for this process; those that killed processes of this user have left go first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_ours(left) and is_abandoned(left / _LOCK):
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_PREFIX) as name, held(Path(name) / _LOCK) as lock:
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield Path(name)


@contextmanager
def held(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which bears a lock until it is closed, or its process ends."""
    with path.open("xb") as file:
        # Where the file system has no locks, nobody can take one either, and nothing is ever removed.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def is_abandoned(path: Path) -> bool:
    """Whether the process that `held` a file has ended; False where that cannot be told.

    An empty file may have been made just now, and not be locked yet.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file).st_size > 0
    except OSError:
        return False
    finally:
        os.close(file)


def _is_ours(folder: Path) -> bool:
    try:
        return folder.is_dir() and not folder.is_symlink() and folder.lstat().st_uid == os.geteuid()
    except OSError:
        return False
