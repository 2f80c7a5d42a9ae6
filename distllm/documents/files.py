"""Which files a submission means."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from distllm.documents.kinds import LARGEST, kind_of, known_suffixes
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.models import Document
from distllm.scratch import scratch_folder

STDIN = Path("-")
"""The path that means standard input."""

_DIGITS = re.compile(r"(\d+)")
_BLOCK = 1 << 20
_AS_BYTES = "bytes:"
_NameKey = tuple[list[tuple[int, str]], str]


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    `path` is absolute; `name` is what people call it: its path within the folder that was asked for, or its
    file name; `mtime` is in seconds since 1970, `size` in bytes. One that is `fleeting` is gone when its
    process ends, so nobody can come back to it. `problem` says why it is not to be read, else None. `document` is
    what was read of it where that has happened already; its path need not be there then.
    """

    path: Path
    name: str
    mtime: float
    size: int
    fleeting: bool = False
    problem: str | None = None
    document: Document | None = None


def find_files(paths: Sequence[Path], stdin: Path | None = None) -> list[Source]:
    """List the files that `paths` mean, in the order given, and those of a folder in natural order.

    A file that is named is always taken; a folder gives, with all that is under it, the files of known
    kinds whose names and folders do not begin with a dot. A file met twice is listed once. Where two files
    would have one name, both bear the path as it was given. `-` means the file `stdin`, into which standard
    input was copied, and is called so.

    A folder may be a stranger's, and its links may lead to what is nobody's business: one that leads out of
    all `paths` is listed with that problem. What is named itself is taken, also where it is a link.

    Raises `UsageError` for a path that does not exist, and `DistllmError` where a folder cannot be listed
    or the folders hold no file to read.
    """
    found: dict[str, tuple[Source, str]] = {}
    asked_for = frozenset(Path(os.path.realpath(path)) for path in paths)
    for given in paths:
        if stdin is not None and given == STDIN:
            found[str(stdin)] = (replace(_source(stdin, stdin), name="stdin", fleeting=True), "-")
            continue
        for path in _files_of(given, asked_for):
            problem = _leads_out(path, asked_for)
            real = os.path.realpath(path) if problem is None else str(path)
            if real not in found:
                found[real] = (replace(_source(path, given), problem=problem), readable(path))
    folders = [path for path in paths if path.is_dir()]
    if folders and not found:
        where = ", ".join(readable(folder) for folder in folders)
        raise DistllmError(f"no file to read in {where}: distllm looks for {known_suffixes()}")
    uses = Counter(source.name for source, _ in found.values())
    return [replace(source, name=as_given) if uses[source.name] > 1 else source for source, as_given in found.values()]


@contextmanager
def copied_stdin(paths: Sequence[Path], stream: BinaryIO | None) -> Iterator[Path | None]:
    """Copy `stream` to a temporary file where `paths` ask for standard input; None where they do not.

    The file is there for the process that extracts its text, and gone at the end. Raises `UsageError` where
    there is no stream, or it is longer than any file that distllm reads.
    """
    if STDIN not in paths:
        yield None
        return
    if stream is None:
        raise UsageError("there is no standard input to read: it is closed")
    with scratch_folder() as folder, (folder / "stdin").open("xb") as file:
        while block := stream.read(_BLOCK):
            file.write(block)
            if file.tell() > max(LARGEST.values()):
                raise UsageError(f"standard input is longer than {max(LARGEST.values()) // 1_000_000} MB")
        file.flush()
        yield Path(file.name)


def _files_of(given: Path, asked_for: Set[Path]) -> Iterator[Path]:
    try:
        given.stat()
    except PermissionError:
        raise DistllmError(f"{readable(given)} cannot be opened: permission denied") from None
    except (OSError, ValueError):
        raise UsageError(f"no such file or folder: {readable(given)}") from None
    if given.is_dir():
        yield from _walk(given, set(), asked_for)
    else:
        yield given


def _walk(folder: Path, above: set[tuple[int, int]], asked_for: Set[Path]) -> Iterator[Path]:
    """Yield the known files under `folder`, and the links out of what was `asked_for`.

    A link that leads back to a folder `above` ends there.
    """
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir(), key=_natural)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DistllmError(f"the folder {readable(folder)} cannot be listed: {reason}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if _leads_out(entry, asked_for) is None:
                yield from _walk(entry, above | {here}, asked_for)
            else:
                yield entry
        elif kind_of(entry):
            yield entry


def _leads_out(path: Path, asked_for: Set[Path]) -> str | None:
    """Tell the problem of a link to what is in none of the places that were `asked_for`; None if it is none."""
    real = Path(os.path.realpath(path))
    # By what it lies in: a shell names ten thousand files of a folder one by one.
    if any(place in asked_for for place in (real, *real.parents)) or not path.exists():
        return None
    return f"is a link to {readable(real)}, outside of what was submitted: to have that read, name it too"


def _natural(path: Path) -> _NameKey:
    """Sort key by which `paper2` comes before `paper10`."""
    pieces = _DIGITS.split(path.name.casefold())
    # Digits stand at the odd places; a number is compared by its length first, as it would be by value.
    key = [(len(piece.lstrip("0")), piece.lstrip("0")) if i % 2 else (0, piece) for i, piece in enumerate(pieces)]
    return key, path.name


def _source(path: Path, given: Path) -> Source:
    name = path.name if path == given else str(path.relative_to(given))
    try:
        status = path.stat()
    except OSError:
        # A dangling link: it is listed, and reading it tells the problem.
        status = path.lstat()
    return Source(path.absolute(), readable(name), status.st_mtime, status.st_size)


def readable(path: Path | str) -> str:
    """Name `path` in characters that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def path_as_text(path: Path) -> str:
    """An absolute path in characters that can be stored; `path_of_text` undoes it.

    A name is bytes to Linux, which need not be text. Such a path is kept as the digits of its bytes.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return _AS_BYTES + os.fsencode(path).hex()
    return str(path)


def path_of_text(text: str) -> Path:
    """The path that `path_as_text` wrote."""
    return Path(os.fsdecode(bytes.fromhex(text.removeprefix(_AS_BYTES))) if text.startswith(_AS_BYTES) else text)
