"""The command run inside the test's process: hundreds of mistakes cost no process each."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from distllm.cli.app import run
from tests.cli.conftest import DISTLLM, Cli, Done
from tests.documents.privileges import WITHOUT_PRIVILEGES
from tests.fakes.server import FakeServer


@dataclass
class Here:
    """Runs commands in the present folder, which is the test's own."""

    files: Cli
    captured: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        """Where commands are run."""
        return self.files.folder

    def run(self, *arguments: str) -> Done:
        """Run a command to its end."""
        self.captured.readouterr()
        code = run(arguments)
        said = self.captured.readouterr()
        return Done(code, said.out, said.err)

    def run_without_privileges(self, *arguments: str) -> Done:
        """Run a command in a process of its own that may not read and write everything, as root may."""
        done = subprocess.run(
            [*WITHOUT_PRIVILEGES, DISTLLM, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(*servers: FakeServer) -> Iterator[None]:
    """Let servers run on a thread, beside code that blocks."""
    started: Future[asyncio.AbstractEventLoop] = Future()
    ended = asyncio.Event()

    async def serve() -> None:
        try:
            for server in servers:
                await server.start()
            started.set_result(asyncio.get_running_loop())
            await ended.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise
        finally:
            for server in servers:
                await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    loop = started.result(timeout=10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(timeout=10)


def one_line(done: Done) -> str:
    """What a mistake is answered with: one line, never a traceback."""
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("distllm: ")
    assert "Traceback" not in done.err
    return lines[0]
