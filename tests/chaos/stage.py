"""One database of a campaign, and who works on it."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.calls import Calls
from tests.chaos.checks import EMPTY, Ledger, Snapshot
from tests.chaos.disk import Disk
from tests.chaos.edges import Edge
from tests.chaos.life import Births, Life, strace, until
from tests.chaos.options import Options
from tests.chaos.papers import Papers
from tests.chaos.report import Report
from tests.chaos.servers import Fleet
from tests.chaos.switches import Switches

START_SECONDS = 60.0
LEAVE_SECONDS = 1.0


@dataclass(slots=True)
class Stage:
    """Starts lives, and judges what they leave. `last` is the database as it was seen last.

    `also_alive` is a coordinator that works beside the newest one; `disturbed` if the fleet misbehaves.
    """

    options: Options
    report: Report
    fleet: Fleet
    papers: Papers
    calls: Calls
    switches: Switches
    births: Births
    ledger: Ledger
    disk: Disk
    many: Path
    few: Path
    last: Snapshot = EMPTY
    also_alive: int = 0
    disturbed: bool = False
    _again: list[str] | None = field(default=None)

    @property
    def mean_seconds(self) -> float:
        """The mean time of an answer."""
        return self.options.answer_seconds

    @property
    def lock_file(self) -> Path:
        """The file whose lock proves a coordinator alive."""
        return self.births.home / "distllm.db-coordinator"

    async def start(self, *arguments: str, edge: Edge | None = None, nth: int | None = None) -> Life:
        """Start the command; with `nth`, that sync of its writes fails."""
        wrapper = (strace(nth) or []) if nth is not None else []
        return await self.births.start(*arguments, edge=edge, wrapper=wrapper)

    def open_jobs(self) -> list[str]:
        """The jobs that have not ended, as they were seen last."""
        return [str(job) for job in self.last.open_jobs]

    def working(self, life: Life) -> bool:
        """Whether a life has asked anything yet."""
        self.calls.refresh()
        return life.name in self.calls.lives

    async def leases(self, life: Life) -> bool:
        """Wait until it asks its first question; false if it ended before."""
        if not await until(lambda: self.working(life) or life.over, START_SECONDS):
            raise BrokenPromiseError("a coordinator goes on with what is left", life.said()[-2000:])
        if not self.working(life):
            return False
        if life.goes_on:
            self.report.restarts.append(self.calls.lives[life.name] - life.started)
        return True

    async def look(self) -> Snapshot:
        """Judge the database as it is, and what the servers were asked until now, whoever works on it."""
        # Read before the database is looked at, so that whatever the log tells of is in there.
        self.calls.refresh()
        self.last = await asyncio.to_thread(self.ledger.look, self.also_alive)
        self.calls.judge(self.last)
        self.report.most_losses = max(self.report.most_losses, self.last.losses)
        return self.last

    async def check(self, life: Life) -> None:
        """A life has ended: judge what it left."""
        await until(lambda: self._settled(life), LEAVE_SECONDS)
        await self.look()
        assert life.died is not None
        self.calls.bury(life.name, life.died, self.last, excused=life.held_up)
        self.report.hit(life.hits())

    def _settled(self, life: Life) -> bool:
        self.calls.refresh()
        return self.calls.running(life.name) == 0

    def command(self, *, small: bool = False) -> list[str]:
        """Go on with what there is, or submit more where work runs low; a `small` job is always new."""
        if self._again is not None:
            again, self._again = self._again, None
            return again
        if small:
            return self.papers.ask(self.few, 2)
        waiting = self.last.counts["pending"] + self.last.counts["leased"]
        if waiting < 3 * self.options.between or not self.last.open_jobs:
            return self.papers.ask(self.many, self.options.questions)
        return ["resume", *self.open_jobs()]

    def repeat(self, command: list[str]) -> None:
        """The next life is given this command."""
        self._again = command

    async def begin(self, edge: Edge | None = None) -> Life:
        """A coordinator that has begun to ask."""
        while True:
            life = await self.start(*self.command(), edge=edge)
            if await self.leases(life):
                return life
            await life.wait(LEAVE_SECONDS)
            self.ended_by_itself(life)
            await self.check(life)

    def ended_by_itself(self, life: Life) -> None:
        """Of poison, or because there was nothing left to do; nothing else is right."""
        if life.killed and self.births.poison is not None:
            self.report.deaths["poison"] += 1
        elif life.process.returncode not in (0, 3, 130):
            shown = f"code {life.process.returncode}: {life.said()[-2000:]}"
            raise BrokenPromiseError("a coordinator works until its jobs have ended", shown)

    async def store(self, command: list[str]) -> None:
        """Submit a job, and leave it at that."""
        life = await self.start(*command, "--detach")
        await life.wait(START_SECONDS)
        await self.check(life)
