"""The coordinators: real processes of the real command, each followed by another when it ends."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.fleet import MODEL
from tests.cluster.servers import Fleet

COMMAND = Path(sys.executable).parent / "distllm"
REQUEST_TIMEOUT = 14
MAX_RETRIES = 50


@dataclass(slots=True, eq=False)
class Life:
    """One process. `touched` is when something befell it last, its birth included."""

    name: str
    process: Process
    log: Path
    born: float = field(default_factory=time.monotonic)
    touched: float = field(default_factory=time.monotonic)
    frozen: bool = False

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is anybody to take it."""
        if not self.over:
            self.process.send_signal(number)

    def said(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")


@dataclass(slots=True)
class Coordinators:
    """Starts processes, each with a configuration that has its name as the key."""

    url: str
    folder: Path
    fleet: Fleet
    lives: list[Life] = field(default_factory=list)
    finished: bool = False

    def alive(self) -> Iterator[Life]:
        """Those that have not ended, frozen ones too."""
        return (life for life in self.lives if not life.over)

    async def submit(self, papers: Path, command: list[str]) -> None:
        """Store a job, as a user does."""
        life = await self._start(*command, "--detach")
        if await life.process.wait() != 0:
            raise BrokenPromiseError("a job can be submitted", life.said())

    async def keep_one(self, place: int, may_end: Callable[[Life], Awaitable[bool]]) -> None:
        """Have one at a place until all is done; `may_end` tells who was right to end by itself."""
        while not self.finished:
            life = await self._start("resume", place=place)
            code = await life.process.wait()
            said = life.said()
            if "Traceback" in said:
                raise BrokenPromiseError("an error is one line, never a traceback", f"{life.log}: {said[-3000:]}")
            if code != -signal.SIGKILL and not self.finished and not await may_end(life):
                shown = f"{life.log} ended with {code}: {said[-3000:]}"
                raise BrokenPromiseError("a coordinator works until its jobs have ended", shown)

    async def end(self) -> None:
        """Kill what still runs."""
        for life in self.lives:
            life.send(signal.SIGCONT)
            life.send(signal.SIGKILL)
            await life.process.wait()

    async def _start(self, *arguments: str, place: int | None = None) -> Life:
        name = f"life{len(self.lives) + 1:04d}" + ("" if place is None else f"-{place}")
        config, log = self.folder / f"{name}.json", self.folder / f"{name}.txt"
        config.write_text(
            json.dumps(
                {
                    "workers": self.fleet.configured(name),
                    "models": {MODEL: [MODEL]},
                    "health_check_interval": 2,
                    "request_timeout": REQUEST_TIMEOUT,
                    "max_retries": MAX_RETRIES,
                }
            )
        )
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DISTLLM")}
        with log.open("w") as file:
            process = await asyncio.create_subprocess_exec(
                *(COMMAND, "--db", self.url, "--config", config, *arguments),
                cwd=self.folder,
                env=kept | {"HOME": str(self.folder), "COLUMNS": "120"},
                stdin=DEVNULL,
                stdout=file,
                stderr=file,
            )
        life = Life(name, process, log)
        self.lives.append(life)
        return life
