"""One process of the real command: started through the launcher, watched, and killed."""

import asyncio
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distllm.store.locks import coordinator_lock
from tests.chaos.broken import BrokenPromiseError
from tests.chaos.edges import Edge, Hit, read_hits
from tests.chaos.servers import REPOSITORY
from tests.chaos.victim import Orders
from tests.processes import descendants_of, is_alive

FREE_WITHIN_SECONDS = 1.0
LOOK_EVERY_SECONDS = 0.01


async def until(met: Callable[[], object], seconds: float) -> bool:
    """Poll until a condition holds; false after `seconds`."""
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(LOOK_EVERY_SECONDS)
    return True


@dataclass(slots=True)
class Life:
    """A running command. `name` is what its requests bear; `goes_on` with stored jobs, if it
    submits none; `held_up` if something kept it from writing in time."""

    name: str
    process: Process
    database: Path
    output: Path
    log: Path
    goes_on: bool
    started: float = field(default_factory=time.monotonic)
    died: float | None = None
    held_up: bool = False
    death: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        # Noted at once: what it had answered before is judged by how long before.
        self.death = asyncio.create_task(self._note_death())

    async def _note_death(self) -> None:
        await self.process.wait()
        self.died = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.returncode is not None

    @property
    def killed(self) -> bool:
        """Whether it has ended by SIGKILL."""
        return self.process.returncode == -signal.SIGKILL

    def said(self) -> str:
        """What it printed."""
        return self.output.read_text(errors="replace")

    def hits(self) -> list[Hit]:
        """The edges that it reached."""
        return read_hits(self.log.read_text()) if self.log.exists() else []

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is anybody to take it."""
        if not self.over:
            self.process.send_signal(number)

    async def wait(self, seconds: float) -> bool:
        """Wait for its end; false if it has not come."""
        await asyncio.wait({self.death}, timeout=seconds)
        if not self.death.done():
            return False
        self._look_for_mistakes()
        return True

    async def kill(self, *, followed: bool = False) -> None:
        """SIGKILL: within a second its children are gone and, unless it is `followed`, the lock is free."""
        children = descendants_of(self.process.pid)
        self.send(signal.SIGKILL)
        await self.death
        await self.leaves_nothing(children, followed=followed)
        self._look_for_mistakes()

    async def leaves_nothing(self, children: Sequence[int] | set[int] = (), *, followed: bool = False) -> None:
        """Now that it is dead."""
        if children and not await until(lambda: not any(map(is_alive, children)), FREE_WITHIN_SECONDS):
            raise BrokenPromiseError("no child outlives its coordinator", f"{sorted(children)} of {self.name}")
        lock = coordinator_lock(self.database)
        if not followed and not await until(lambda: not lock.is_held(), FREE_WITHIN_SECONDS):
            raise BrokenPromiseError("the lock is free when its holder is dead", f"held by {lock.holder()}")

    def _look_for_mistakes(self) -> None:
        said = self.said()
        if "Traceback" in said:
            raise BrokenPromiseError("an error is one line, never a traceback", said[-3000:])


@dataclass(slots=True)
class Births:
    """Starts commands in `home`, and names them; `before` are folders that come first where Python looks for packages.

    `configure` gives the configuration of a life, `poison` is the mark of what kills it.
    """

    prefix: str
    home: Path
    notes: Path
    switches: Path
    configure: Callable[[str], str]
    before: Sequence[Path] = ()
    poison: str | None = None
    lives: list[Life] = field(default_factory=list)

    async def start(self, *arguments: str, edge: Edge | None = None, wrapper: Sequence[str] = ()) -> Life:
        """Start `distllm ARGUMENTS`."""
        name = f"{self.prefix}{len(self.lives) + 1:05d}"
        output, log = self.notes / f"{name}.txt", self.notes / f"{name}.edges"
        config = self.notes / f"{name}.json"
        config.write_text(self.configure(name))
        orders = Orders(log, self.switches, edge, self.poison)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DISTLLM")}
        environment = {
            "HOME": str(self.notes),
            "COLUMNS": "120",
            "DISTLLM_CONFIG": str(config),
            "PYTHONPATH": os.pathsep.join(map(str, [*self.before, REPOSITORY])),
        }
        with output.open("w") as file:
            file.write(f"$ distllm {' '.join(arguments)}\n")
            file.flush()
            process = await asyncio.create_subprocess_exec(
                *(*wrapper, sys.executable, "-m", "tests.chaos.victim", *arguments),
                cwd=self.home,
                env=kept | environment | orders.environment(),
                stdin=DEVNULL,
                stdout=file,
                stderr=file,
            )
        life = Life(name, process, self.home / "distllm.db", output, log, arguments[0] == "resume")
        self.lives.append(life)
        return life

    async def end(self) -> None:
        """Kill what still runs."""
        for life in self.lives:
            if not life.over:
                life.send(signal.SIGCONT)
                for child in descendants_of(life.process.pid):
                    if is_alive(child):
                        os.kill(child, signal.SIGKILL)
                life.send(signal.SIGKILL)
            await life.death


def strace(nth: int) -> list[str] | None:
    """What to start a command with so that its `nth` fdatasync fails; None where there is no strace."""
    found = shutil.which("strace")
    inject = f"inject=fdatasync:error=EIO:when={nth}"
    return found and [found, "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", inject]  # type: ignore[return-value]
