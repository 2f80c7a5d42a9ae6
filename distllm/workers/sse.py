"""Lines and server-sent events out of a stream of bytes, however it was cut into chunks.

Both take one chunk after another in `feed`, and at the end of the stream `end`; what that gives is to be taken before
the next chunk is fed.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

LONGEST_LINE = 4 * 2**20
"""Bytes that one line or one event may have."""


class LineTooLongError(Exception):
    """The server sent more than `LONGEST_LINE` bytes without an end of line."""


class Event(NamedTuple):
    """One server-sent event. `stray` marks text that was no event at all, such as an HTML page."""

    data: bytes
    name: str = "message"
    stray: bool = False


class Lines:
    """Lines without their ends (LF or CRLF); the last one may lack it."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk. Raises LineTooLongError."""
        *whole, rest = chunk.split(b"\n")
        if whole and self._begun:
            whole[0] = b"".join((*self._begun, whole[0]))
            self._begun.clear()
            self._size = 0
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
        if self._size > self._longest or max(map(len, whole), default=0) > self._longest:
            raise LineTooLongError
        return [line.removesuffix(b"\r") for line in whole]

    def end(self) -> list[bytes]:
        """The line that the stream did not end, if there is one."""
        return [b"".join(self._begun).removesuffix(b"\r")] if self._begun else []


class Events:
    """The events of a stream, without comments.

    Kinder than the standard in two things: an event that the end of the stream cuts short of its empty
    line is one, and lines that belong to no event come last, as one stray event.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._lines = Lines(longest)
        self._data: list[bytes] = []
        self._strays: list[bytes] = []
        self._name = ""
        self._size = self._stray_size = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that end in this chunk. Raises LineTooLongError."""
        return self._events(self._lines.feed(chunk))

    def end(self) -> Iterator[Event]:
        """The event that the stream did not end, and what was no event. Raises LineTooLongError."""
        yield from self._events([*self._lines.end(), b""])
        if self._strays:
            yield Event(b"\n".join(self._strays), stray=True)

    def _events(self, lines: Iterable[bytes]) -> Iterator[Event]:
        data = self._data
        for line in lines:
            if not line:
                if data:
                    yield Event(b"\n".join(data), self._name or "message")
                    data.clear()
                self._name, self._size = "", 0
            elif line.startswith(b"data:"):
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._size += len(line)
                if self._size > self._longest:
                    raise LineTooLongError
            else:
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Take in what is no data."""
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(b"")
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field not in (b"", b"id", b"retry"):
            self._strays.append(line)
            self._stray_size += len(line)
            if self._stray_size > self._longest:
                raise LineTooLongError
