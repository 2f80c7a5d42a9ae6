"""Lines and server-sent events out of a stream of bytes, however it was cut into chunks."""

from collections.abc import AsyncIterator
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


async def lines(chunks: AsyncIterator[bytes], longest: int = LONGEST_LINE) -> AsyncIterator[bytes]:
    """Yield each line without its end (LF or CRLF); the last one may lack it.

    Raises LineTooLongError, and whatever `chunks` raises.
    """
    begun: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            if size + len(piece) > longest:
                raise LineTooLongError
            yield b"".join((*begun, piece)).removesuffix(b"\r")
            begun.clear()
            size = 0
        begun.append(rest)
        size += len(rest)
        if size > longest:
            raise LineTooLongError
    if size:
        yield b"".join(begun).removesuffix(b"\r")


async def events(chunks: AsyncIterator[bytes], longest: int = LONGEST_LINE) -> AsyncIterator[Event]:
    """Yield the events of a stream, without comments.

    Kinder than the standard in two things: an event that the end of the stream cuts short of its empty
    line is yielded, and lines that belong to no event come last, as one stray event.
    Raises LineTooLongError, and whatever `chunks` raises.
    """
    data: list[bytes] = []
    strays: list[bytes] = []
    name = ""
    size = stray_size = 0
    async for line in lines(chunks, longest):
        if not line:
            if data:
                yield Event(b"\n".join(data), name or "message")
            data.clear()
            name, size = "", 0
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
            size += len(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field not in (b"", b"id", b"retry"):
            strays.append(line)
            stray_size += len(line)
        if size > longest or stray_size > longest:
            raise LineTooLongError
    if data:
        yield Event(b"\n".join(data), name or "message")
    if strays:
        yield Event(b"\n".join(strays), stray=True)
