"""The real command in a process of its own, in an empty folder with an empty home."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.server import FakeServer
from tests.store.conftest import emptied, postgres_store
from tests.store.store_kit import PostgresStore

if TYPE_CHECKING:
    from tests.cli.here import Here

__all__ = ["emptied", "postgres_store"]

DISTLLM = Path(sys.executable).parent / "distllm"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Cli:
    """Runs commands in `folder`."""

    folder: Path
    processes: list[Process] = field(default_factory=list)
    store: PostgresStore | None = None
    """The database that commands use where it is on a server."""

    @property
    def database(self) -> Path:
        """The database that commands use by default, in a file."""
        return self.folder / "distllm.db"

    async def start(self, *arguments: str, piped: bool = False, program: Sequence[str | Path] = (DISTLLM,)) -> Process:
        """Start a command and return while it runs; its standard input is a pipe or nothing.

        `program` is what stands before the arguments: the command, or what does something to it.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTLLM")}
        process = await asyncio.create_subprocess_exec(
            *program,
            *arguments,
            cwd=self.folder,
            env=environment
            | ({} if self.store is None else {"DISTLLM_DB": self.store.place.secret})
            | {"HOME": str(self.folder / "home"), "COLUMNS": "120", "PYTHONWARNINGS": "error"},
            stdin=PIPE if piped else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        self.processes.append(process)
        return process

    async def run(self, *arguments: str, seconds: float = 60.0, program: Sequence[str | Path] = (DISTLLM,)) -> Done:
        """Run a command to its end."""
        return await self.finish(await self.start(*arguments, program=program), seconds)

    async def finish(self, process: Process, seconds: float = 60.0, stdin: bytes | None = None) -> Done:
        """Give a command its standard input, and wait for its end."""
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    def write(self, name: str, text: str) -> Path:
        """Write a file in the folder."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def use(self, *servers: FakeServer, **more: Any) -> None:
        """Configure the servers as workers."""
        workers = [
            {"id": f"w{i}", "type": "openai", "host": server.host, "port": server.port, "model": server.model}
            for i, server in enumerate(servers)
        ]
        self.write("workers.json", json.dumps({"workers": workers} | more))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database in SQL; no rows while there is none."""
        if self.store is not None:
            return self.store.rows(statement)
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError:
                return []

    async def until(self, met: Callable[[], object], seconds: float = 60.0) -> None:
        """Poll until a condition holds; TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            while not met():  # noqa: ASYNC110 - what another process does sets no event here
                await asyncio.sleep(0.02)

    def papers(self, count: int = 3, words: int = 80) -> Path:
        """A folder of papers that are like no others."""
        for number in range(count):
            text = " ".join(f"paper{number}word{index}" for index in range(words))
            self.write(f"papers/paper{number}.txt", text)
        return self.folder / "papers"


# Each command on PostgreSQL is two processes more to start: of its kills, one story and `tests.cluster` run every day.
on_both_engines = pytest.mark.parametrize(
    "cli", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True
)


@pytest.fixture
async def cli(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Cli]:
    """The command, in a folder of its own; what it leaves running is killed. Its database is in a file by default."""
    runner = Cli(tmp_path)
    if getattr(request, "param", "sqlite") == "postgres":
        runner.store = request.getfixturevalue("postgres_store")
    (tmp_path / "home").mkdir()
    yield runner
    for process in runner.processes:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.communicate()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Here":
    """The command, run inside this process in a folder of its own, with an empty home."""
    from tests.cli.here import Here

    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in list(os.environ):
        if name.startswith(("DISTLLM", "XDG_")):
            monkeypatch.delenv(name)
    return Here(Cli(tmp_path), capsys)
