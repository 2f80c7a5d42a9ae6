"""The reader of documents: a few child processes, of which any may die without harm to the others."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from distllm.documents.child import TOO_MUCH_MEMORY
from distllm.documents.splitting import Span
from distllm.domain.errors import DistllmError
from distllm.domain.models import Document

_GIBIBYTE = 1 << 30
_MOST_CHILDREN = 4
_SECONDS_TO_SPLIT_A_MEGABYTE = 20.0

T = TypeVar("T")


class DocumentReader:
    """Reads files, and splits texts, in child processes, several at a time; used as an async context manager.

    A file may crash the library that opens it, or take all time and memory: it costs its child then, and
    is told as that file's problem; the next file gets a new child. The children end when the reader is
    closed, and within a second when this process dies, however it dies.
    """

    def __init__(
        self,
        children: int | None = None,
        *,
        seconds: float = 60.0,
        seconds_per_megabyte: float = 0.5,
        memory: int = 2 * _GIBIBYTE,
    ) -> None:
        """Prepare a reader; no child is started before there is a file for it.

        `children` is how many files are read at once, None for the number of processors, at most 4. A file
        may take `seconds`, and `seconds_per_megabyte` more for each 10**6 bytes of its size, and its child
        `memory` bytes.
        """
        self._seconds = seconds
        self._seconds_per_megabyte = seconds_per_megabyte
        self._memory = memory
        self._children = children or min(_MOST_CHILDREN, os.cpu_count() or 1)
        self._seats = asyncio.Semaphore(self._children)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all children at once and wait until they are gone. Files still being read have a problem."""
        self._closed = True
        for child in self._busy:
            child.kill()
        while self._idle:
            self._end(self._idle.pop())
        # Once every seat is free, each read has noticed, and has handed its child over to `_endings`.
        for _ in range(self._children):
            await self._seats.acquire()
        for _ in range(self._children):
            self._seats.release()
        await asyncio.gather(*self._endings)

    async def read(self, path: Path) -> Document:
        """Read one file. Whatever the file is or does is told in the document's `problem`.

        Raises `DistllmError` only where the reader is closed, or this machine starts no process.
        """
        self._refuse_if_closed()
        async with self._seats:
            document = None
            while document is None:
                document = await self._read_with(await self._take(), path)
            return document

    async def split(self, text: str, budget: int, *, references: bool) -> list[Span]:
        """The parts of a text, none of which is estimated to have more than `budget` tokens; see `splitting.split`.

        Raises `DistllmError` where the reader is closed, this machine starts no process, or has no time or memory.
        """
        self._refuse_if_closed()
        async with self._seats:
            spans = None
            while spans is None:
                spans = await self._split_with(await self._take(), text, budget, references)
            return spans

    async def _read_with(self, child: "_Child", path: Path) -> Document | None:
        """Read a file with this child; None where the child had died before, in its idle time."""
        limit = self._seconds + self._seconds_per_megabyte * _size(path) / 1e6
        try:
            return await self._within(limit, child, child.read(path))
        except TimeoutError:
            return _unread(child, f"took longer than {_rounded(limit)} s to read")
        except (asyncio.IncompleteReadError, ConnectionError):
            if child.has_served and child.sha256 is None and not self._closed:
                return None
            return _unread(child, self._why_it_died(child))

    async def _split_with(self, child: "_Child", text: str, budget: int, references: bool) -> list[Span] | None:
        """Split a text with this child; None where it had served before and died, maybe in its idle time."""
        limit = self._seconds + _SECONDS_TO_SPLIT_A_MEGABYTE * len(text) / 1e6
        try:
            return await self._within(limit, child, child.split(text, budget, references))
        except TimeoutError:
            raise DistllmError(f"{_sized(text)} took longer than {_rounded(limit)} s to split") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            if child.has_served and not self._closed:
                return None
            raise DistllmError(f"{_sized(text)} broke the process that split it") from None

    async def _within(self, seconds: float, child: "_Child", work: Coroutine[Any, Any, T]) -> T:
        """What a child is asked for; it is idle afterwards, or ended. Raises what `_Child` does, or TimeoutError."""
        self._busy.add(child)
        try:
            async with asyncio.timeout(seconds):
                found = await work
        except (asyncio.IncompleteReadError, ConnectionError):
            await asyncio.shield(self._end(child))
            raise
        else:
            child.has_served = True
            self._busy.discard(child)
            self._idle.append(child)
            return found
        finally:
            if child in self._busy:
                self._end(child)

    async def _take(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None:
                return child
            self._end(child)
        self._refuse_if_closed()
        child = await _start_child(self._memory)
        if self._closed:
            self._end(child)
        self._refuse_if_closed()
        return child

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise DistllmError("the reader of documents is closed")

    def _end(self, child: "_Child") -> asyncio.Task[None]:
        """Kill a child and have it reaped, also when the caller is cancelled meanwhile."""
        child.kill()
        self._busy.discard(child)
        ending = asyncio.create_task(child.reap())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    def _why_it_died(self, child: "_Child") -> str:
        if self._closed:
            return "was not read: the reader was closed meanwhile"
        too_much = f"more than {self._memory / _GIBIBYTE:.3g} GiB of memory"
        if child.process.returncode == TOO_MUCH_MEMORY:
            return f"took {too_much} to read"
        if child.sha256 is None:
            return f"could not be read: its reading process ended at once ({child.process.returncode})"
        # PDFium aborts where the system refuses it memory, and where it meets a fault of its own.
        return f"broke the process that read it: it is damaged, or takes {too_much}"


@dataclass(eq=False, slots=True)
class _Child:
    """One child process, the hash of the file that it reads as soon as that is known, and its past."""

    process: asyncio.subprocess.Process
    sha256: str | None = field(default=None, init=False)
    has_served: bool = field(default=False, init=False)

    async def read(self, path: Path) -> Document:
        """Have the child read `path`; raises IncompleteReadError or ConnectionError where it dies."""
        self.sha256 = None
        await self._send({"path": str(path.absolute())})
        self.sha256 = (await self._receive())["sha256"]
        return Document(**await self._receive())

    async def split(self, text: str, budget: int, references: bool) -> list[Span]:
        """Have the child split a text; raises IncompleteReadError or ConnectionError where it dies."""
        self.sha256 = None
        await self._send({"split": text, "budget": budget, "references": references})
        return [Span(first, last) for first, last in await self._receive()]

    async def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        await self.process.stdin.drain()

    async def _receive(self) -> Any:
        assert self.process.stdout is not None
        length = int.from_bytes(await self.process.stdout.readexactly(8), "big")
        return json.loads(await self.process.stdout.readexactly(length))

    def kill(self) -> None:
        if self.process.returncode is None:
            # Not process.kill(), which waits for a child that has just ended by itself, and loses its exit code.
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    async def reap(self) -> None:
        """Wait for the end of a killed child, and empty its pipe: only then do the transports close."""
        await self.process.communicate()


async def _start_child(memory: int) -> _Child:
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Without -P a file `json.py` among someone's papers would be imported.
            "-P",
            "-m",
            "distllm.documents.child",
            str(memory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Its own group, so that Ctrl-C reaches the parent alone, which knows what to do about it.
            process_group=0,
        )
    except OSError as error:
        raise DistllmError(f"no process to read documents could be started: {error.strerror}") from error
    return _Child(process)


def _sized(text: str) -> str:
    return f"a text of {len(text):,} characters"


def _rounded(seconds: float) -> str:
    return f"{seconds:.{0 if seconds >= 10 else 1}f}"


def _unread(child: _Child, problem: str) -> Document:
    return Document(sha256=child.sha256, text="", title=None, pages=None, problem=problem)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
