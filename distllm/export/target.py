"""Where an export goes: a file that is whole or as it was before, or standard output."""

import errno
import hashlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from distllm.domain.errors import DistllmError, UsageError
from distllm.scratch import held, is_abandoned


async def save(pieces: AsyncIterator[bytes], path: Path) -> None:
    """Write all of `pieces` to a file; whatever happens, it is either whole or as it was before.

    A device or a pipe cannot be replaced: it is written itself. Raises DistllmError if it cannot be written,
    UsageError if it is a folder or lies in none.
    """
    with named(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as device:
                await _write(pieces, device)
            return
        target = path.resolve()
        if target.is_dir():
            raise UsageError(f"{path} is a folder: name a file in it")
        if not target.parent.is_dir():
            raise UsageError(f"the folder {path.parent} does not exist: make it, or name another file")
        with _replaced(target) as file:
            await _write(pieces, file)


async def print_to(pieces: AsyncIterator[bytes], out: BinaryIO) -> None:
    """Write `pieces` to a stream that others read. A reader that has gone away is BrokenPipeError."""
    with named("standard output"):
        await _write(pieces, out)
        out.flush()


async def _write(pieces: AsyncIterator[bytes], file: BinaryIO) -> None:
    async for piece in pieces:
        file.write(piece)


@contextmanager
def _replaced(target: Path) -> Iterator[BinaryIO]:
    """A file beside `target` that takes its place at the end, with its rights.

    What killed exports to the same target have left goes first.
    """
    its_own = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]
    for left in target.parent.glob(f".distllm-{its_own}-*.part"):
        if is_abandoned(left):
            with suppress(OSError):
                left.unlink()
    temporary = target.with_name(f".distllm-{its_own}-{secrets.token_hex(6)}.part")
    try:
        with held(temporary) as file:
            yield file
            file.flush()
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            _sync(file.fileno())
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name is on the disk once its folder is; some file systems cannot sync one.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sync(descriptor: int) -> None:
    """Have the disk keep it; on macOS fsync alone leaves it in the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


@contextmanager
def named(name: Path | str) -> Iterator[None]:
    """What goes wrong in writing to `name` is one line, a DistllmError; a pipe that broke stays as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = {
            errno.ENOSPC: "make room, or name a file on another disk",
            errno.EDQUOT: "make room, or name a file on another disk",
            errno.EFBIG: "the system limits how large a file may grow",
            errno.EACCES: "give yourself the right to write its folder, or name another file",
            errno.EROFS: "name a file elsewhere",
            errno.ENAMETOOLONG: "give it a shorter name",
        }.get(error.errno or 0, "name another file")
        kept = "" if isinstance(name, str) else "; nothing was changed"
        raise DistllmError(f"{name} could not be written: {error.strerror or error}{kept}; {remedy}") from error
