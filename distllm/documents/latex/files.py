"""The files that a LaTeX file is made of."""

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath

from distllm.documents.text import decode

MOST_BYTES = 64_000_000
MOST_FILES = 500
DEEPEST = 10

# A percent sign in these begins no comment.
_VERBATIM = re.compile(
    r"""\\begin\{(verbatim|lstlisting|minted)(\*?)\}.{0,50000}?\\end\{\1\2\}
    | \\(?:url|href|nolinkurl)\{[^{}\n]*\}
    | \\verb\*?([^\sa-zA-Z*])[^\n]{0,1000}?\3""",
    re.DOTALL | re.VERBOSE,
)
# TeX goes on with the next line behind a comment, unless that line is empty: then a paragraph ends.
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*(?:\n[ \t]*(?=\S))?")
_LEFT_OUT = (
    (re.compile(r"\\begin\{comment\}"), re.compile(r"\\end\{comment\}")),
    (re.compile(r"\\iffalse(?![A-Za-z])"), re.compile(r"\\fi(?![A-Za-z])")),
)
_INPUT = re.compile(r"\\(?:input|include|subfile)(?:\s*\{([^{}\n]+)\}|[ \t]+([\w./-]+))")


class Files:
    """Puts the files that `\\input` and `\\include` name where they are named.

    A stranger's paper may name any file, so only what is within its own folder is taken, links followed:
    no absolute path, no `..`, nothing hidden, and no more than `MOST_FILES`, `MOST_BYTES` and `DEEPEST` allow.
    What is not taken, or is not there, stays as it is written. `sha256` stands for all bytes that were taken,
    None where they are those of the first file alone.
    """

    def __init__(self, folder: Path, data: bytes) -> None:
        self._folder = folder.resolve()
        self._digest = hashlib.sha256(data)
        self._files = 0
        self._bytes = len(data)

    @property
    def sha256(self) -> str | None:
        return self._digest.hexdigest() if self._files else None

    def put_in(self, source: str, depth: int = 0) -> str:
        """Give `source` without its comments, and with the files that it names."""
        source = _without_what_is_left_out(_without_comments(source))
        return source if depth == DEEPEST else _INPUT.sub(lambda named: self._content(named, depth), source)

    def _content(self, named: re.Match[str], depth: int) -> str:
        data = self._read((named[1] or named[2]).strip())
        text = None if data is None else decode(data)
        if data is None or text is None:
            return named[0]
        self._files += 1
        self._bytes += len(data)
        # Each file's own hash, so that no two sets of files are alike.
        self._digest.update(hashlib.sha256(data).digest())
        return self.put_in(text, depth + 1)

    def _read(self, name: str) -> bytes | None:
        path = PurePosixPath(name)
        if path.is_absolute() or any(part.startswith(".") for part in path.parts) or self._files == MOST_FILES:
            return None
        for candidate in (f"{path}.tex", str(path)):
            try:
                real = (self._folder / candidate).resolve(strict=True)
                if real.is_relative_to(self._folder):
                    return _read_regular(real, MOST_BYTES - self._bytes)
            except (OSError, ValueError, RuntimeError):
                continue
        return None


def _without_comments(source: str) -> str:
    pieces: list[str] = []
    start = 0
    for kept in _VERBATIM.finditer(source):
        pieces += _COMMENT.sub(r"\1", source[start : kept.start()]), kept[0]
        start = kept.end()
    return "".join([*pieces, _COMMENT.sub(r"\1", source[start:])])


def _without_what_is_left_out(source: str) -> str:
    for begin, end in _LEFT_OUT:
        pieces: list[str] = []
        start = 0
        while (opened := begin.search(source, start)) and (closed := end.search(source, opened.end())):
            pieces.append(source[start : opened.start()])
            start = closed.end()
        source = "".join([*pieces, source[start:]])
    return source


def _read_regular(path: Path, most: int) -> bytes | None:
    # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        return file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= most else None
