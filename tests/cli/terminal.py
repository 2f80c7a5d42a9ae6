"""A command on a terminal of a given size, and what was drawn there."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.conftest import DISTLLM, Cli

HOME = "\x1b[H"
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@dataclass
class Terminal:
    """What a command has written so far."""

    process: Process
    descriptor: int
    written: bytearray = field(default_factory=bytearray)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """All of it, with what a terminal obeys."""
        return self.written.decode("utf-8", "replace")

    @property
    def frames(self) -> list[list[str]]:
        """What was drawn over the whole terminal, each time as its lines."""
        drawn = self.text.partition(ENTER)[2].partition(LEAVE)[0].split(HOME)[1:]
        return [frame.split("\n") for frame in map(plain, drawn) if frame]

    async def until(self, words: str, seconds: float = 20.0) -> None:
        """Wait until `words` were written."""
        async with asyncio.timeout(seconds):
            while words not in self.text:
                self.changed.clear()
                await self.changed.wait()

    def enter(self, line: str) -> None:
        """Type a line."""
        os.write(self.descriptor, f"{line}\n".encode())

    async def end(self, seconds: float = 5.0) -> None:
        """Wait until everything that was written is here."""
        async with asyncio.timeout(seconds):
            await self.closed.wait()


def plain(text: str) -> str:
    """Text without what a terminal obeys, nor the lines that were rewritten."""
    text = re.sub(r"[^\r\n]*\r\x1b\[2K", "", text)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", text)


@asynccontextmanager
async def on_terminal(
    cli: Cli, *arguments: str, lines: int = 24, columns: int = 80, program: Path | str = DISTLLM
) -> AsyncIterator[Terminal]:
    """Run a command on a terminal; it is killed at the end if it runs still."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DISTLLM", "COLUMNS", "LINES"))}
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=cli.folder,
        env=kept | {"HOME": str(cli.folder / "home"), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(process, ours)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            block = os.read(ours, 65536)
        except OSError:
            block = b""
        if not block:
            loop.remove_reader(ours)
            terminal.closed.set()
        terminal.written += block
        terminal.changed.set()

    loop.add_reader(ours, read)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        loop.remove_reader(ours)
        os.close(ours)
