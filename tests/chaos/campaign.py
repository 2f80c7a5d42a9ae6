"""A campaign: round after round a coordinator is started, troubled and killed, and everything is looked at."""

import asyncio
import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.broken import BrokenPromiseError, few
from tests.chaos.calls import Calls
from tests.chaos.checks import EMPTY, Ledger, Snapshot
from tests.chaos.disk import Disk
from tests.chaos.edges import BUILD, Edge
from tests.chaos.life import Births, Life, strace, until
from tests.chaos.options import Options
from tests.chaos.papers import POISON, Papers
from tests.chaos.plan import EDGE, IO, Round, make_plan
from tests.chaos.plants import plant
from tests.chaos.report import Report
from tests.chaos.servers import Fleet
from tests.chaos.switches import Switches
from tests.chaos.troubles import TROUBLES_BY_NAME
from tests.chaos.victim import POISONED

START_SECONDS = 60.0
EDGE_SECONDS = 20.0
END_SECONDS = 900.0
CONDEMNED = "went down with it"
"""In the reason for which distllm fails what nobody survives."""

SMALL_JOB_SORTS = (BUILD, "document", "job")


@dataclass(slots=True)
class Campaign:
    """One run, in `folder`."""

    options: Options
    folder: Path
    report: Report
    fleet: Fleet = field(init=False)
    papers: Papers = field(init=False)
    calls: Calls = field(init=False)
    switches: Switches = field(init=False)
    births: Births = field(init=False)
    ledger: Ledger = field(init=False)
    disk: Disk = field(init=False)
    last: Snapshot = EMPTY
    also_alive: int = 0
    disturbed: bool = False
    many: Path = field(init=False)
    few: Path = field(init=False)
    _number: int = 0
    _again: list[str] | None = None
    _before: list[Path] = field(default_factory=list)

    @property
    def mean_seconds(self) -> float:
        """The mean time of an answer."""
        return self.options.answer_seconds

    @property
    def lock_file(self) -> Path:
        """The file whose lock proves a coordinator alive."""
        return self.births.home / "distllm.db-coordinator"

    async def run(self) -> Report:
        """All of it; raises BrokenPromiseError as soon as something is amiss."""
        options, began = self.options, time.monotonic()
        self.papers = Papers(self.folder / "papers", Random(f"papers {options.seed}"))
        self.calls = Calls(self.folder / "calls.log")
        self.switches = Switches(self.folder / "switches")
        self.many, self.few = self.papers.write("many", options.papers), self.papers.write("few", 10)
        if options.plant is not None:
            self._before = [plant(options.plant, self.folder / "planted")]
        rounds = make_plan(options)
        if "io" in options.faults and strace(1) is None:
            self.report.left_out.append("io, which needs strace")
            rounds = [each for each in rounds if each.death != IO]
        self.fleet = await Fleet.start(
            seats=options.in_flight, answer_seconds=options.answer_seconds, seed=options.seed, log=self.calls.path
        )
        try:
            step = options.database_rounds
            parts = [rounds[at : at + step] for at in range(0, len(rounds), step)]
            for number, part in enumerate(parts, 1):
                await self._one_database(number, part, len(parts), sum(map(len, parts[: number - 1])), len(rounds))
        finally:
            await self.fleet.stop()
            self.switches.close()
            self.report.seconds = time.monotonic() - began
            self._gather()
        self.report.judge()
        return self.report

    async def _one_database(self, number: int, rounds: list[Round], parts: int, done: int, all_rounds: int) -> None:
        """Rounds on one database, and its end."""
        home, notes = self.folder / f"database{number}", self.folder / f"notes{number}"
        home.mkdir()
        notes.mkdir()
        poison = POISON if self.options.poison and number == 1 else None
        self.births = Births(home, notes, self.switches_path, self._configuration, self._before, poison)
        self.ledger = Ledger(home / "distllm.db")
        self.disk = Disk(home, self.switches)
        self.last, self.also_alive, self._again = EMPTY, 0, None
        self.calls.forget()
        self.report.databases += 1
        if any(each.trouble == "disk" for each in rounds) and not self.disk.mount():
            self.report.left_out.append("a really full disk (none can be mounted here; the file was bounded instead)")
        try:
            for place, each in enumerate(rounds, done + 1):
                await self._round(each)
                if place == 1:
                    await self._store_poison()
                counts = self.last.counts
                _tell(f"{place} of {all_rounds} rounds, {counts['done']:,} of {counts.total():,} prompts done")
            while len(self.last.states) < self.options.prompts / parts:
                await self._store(self.papers.ask(self.many, self.options.questions))
            await self._end()
        finally:
            self._count_database()
            await self.births.end()
            self.ledger.close()
            self.disk.unmount()

    async def start(self, *arguments: str, edge: Edge | None = None, nth: int | None = None) -> Life:
        """Start the command; with `nth`, that sync of its writes fails."""
        self._number += 1
        prefix = (strace(nth) or []) if nth is not None else []
        return await self.births.start(self._number, *arguments, edge=edge, prefix=prefix)

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
        if life.name not in self.calls.lives:
            return False
        if life.goes_on:
            self.report.restarts.append(self.calls.lives[life.name] - life.started)
        return True

    async def look(self) -> Snapshot:
        """Judge the database now, whoever works on it."""
        self.last = await asyncio.to_thread(self.ledger.look, self.also_alive)
        return self.last

    async def check(self, life: Life) -> None:
        """A life has ended: judge the database and what the servers were asked."""
        await until(lambda: self._settled(life), 1.0)
        # Read before the database is looked at, so that whatever the log tells of is in there.
        snapshot = await self.look()
        self.calls.judge(snapshot)
        assert life.died is not None
        self.calls.bury(life.name, life.died, snapshot, excused=life.held_up)
        self.report.hit(life.hits())
        self.report.most_losses = max(self.report.most_losses, snapshot.losses)

    def _settled(self, life: Life) -> bool:
        self.calls.refresh()
        return self.calls.running(life.name) == 0

    async def _round(self, each: Round) -> None:
        rng = Random(each.seed)
        if each.death == EDGE:
            return await self._die_at_the_edge(each)
        if each.death == IO:
            return await self._fail_to_sync(rng)
        life = await self._working(each.edge)
        if each.trouble is not None:
            life = await TROUBLES_BY_NAME[each.trouble](self, life, rng)
            self.report.troubles[each.trouble] += 1
        if not await life.wait(each.gap):
            await life.kill()
            self.report.deaths["kill"] += 1
        else:
            self._ended_by_itself(life)
        await self.check(life)
        self.switches.turn(clock=0.0, full=False)
        if self.disturbed:
            await self.fleet.tell("calm")
            self.disturbed = False
        if each.trouble != "late":
            self.also_alive = 0
        return None

    async def _working(self, edge: Edge | None = None) -> Life:
        """A coordinator that has begun to ask."""
        while True:
            life = await self.start(*self._command(small=False), edge=edge)
            if await self.leases(life):
                return life
            await life.wait(1.0)
            self._ended_by_itself(life)
            await self.check(life)

    def _ended_by_itself(self, life: Life) -> None:
        """Of poison, or because there was nothing left to do; nothing else is right."""
        if life.killed and self.births.poison is not None:
            self.report.deaths["poison"] += 1
        elif life.process.returncode not in (0, 3, 130):
            shown = f"code {life.process.returncode}: {life.said()[-2000:]}"
            raise BrokenPromiseError("a coordinator works until its jobs have ended", shown)

    def _command(self, *, small: bool) -> list[str]:
        """Go on with what there is, or submit more where work runs low."""
        if self._again is not None:
            again, self._again = self._again, None
            return again
        waiting = self.last.counts["pending"] + self.last.counts["leased"]
        if small:
            return self.papers.ask(self.few, 2)
        if waiting < 3 * self.options.between or not self.last.open_jobs:
            return self.papers.ask(self.many, self.options.questions)
        return ["resume", *self.open_jobs()]

    async def _die_at_the_edge(self, each: Round) -> None:
        assert each.edge is not None
        small = each.edge.sort in SMALL_JOB_SORTS
        command = self._command(small=small)
        life = await self.start(*command, edge=each.edge)
        if await life.wait(EDGE_SECONDS):
            hit = any(each.side != POISONED for each in life.hits())
            self.report.deaths["edge" if hit else "none"] += hit
            self.report.missed += not hit
            if not hit:
                self._ended_by_itself(life)
        else:
            await life.kill()
            self.report.missed += 1
            self.report.deaths["kill"] += 1
        await life.leaves_nothing()
        # Half of what was killed while it was submitted is submitted once more, the other half only resumed.
        if small and each.seed % 2:
            self._again = command
        await self.check(life)

    async def _fail_to_sync(self, rng: Random) -> None:
        """The disk does not take what is written: the coordinator stops and says so."""
        life = await self.start(*self._command(small=False), nth=rng.randint(3, 30))
        life.held_up = True
        if not await life.wait(START_SECONDS):
            await life.kill()
            raise BrokenPromiseError("a coordinator that cannot write stops", life.said()[-2000:])
        if life.process.returncode == 1 and "could not be written" in life.said():
            self.report.deaths["input/output error"] += 1
        else:
            self._ended_by_itself(life)
            self.report.missed += 1
        await life.leaves_nothing()
        await self.check(life)

    async def _store_poison(self) -> None:
        """From now on nobody lives long, until what is poison is found; others are in flight with it at first."""
        if self.options.poison:
            where = self.papers.write("poison", self.options.poison, mark=POISON)
            await self._store(self.papers.ask(where, 1))

    async def _store(self, command: list[str]) -> None:
        life = await self.start(*command, "--detach")
        await life.wait(START_SECONDS)
        await self.check(life)

    async def _end(self) -> None:
        """Resume everything to its end, and look at it as a whole."""
        await self.fleet.tell("calm")
        await self.fleet.tell("pace", min(0.02, self.mean_seconds))
        end = time.monotonic() + END_SECONDS
        while self.last.open_jobs:
            life = await self.start("resume", *self.open_jobs())
            if not await life.wait(max(0.0, end - time.monotonic())):
                raise BrokenPromiseError("everything is done in the end", f"still busy: {life.said()[-2000:]}")
            self._ended_by_itself(life)
            await self.check(life)
        await self.fleet.tell("pace", self.mean_seconds)
        counts = self.last.counts
        condemned = [key for key, error in self.last.failed.items() if CONDEMNED in error]
        self._judge_the_end(len(condemned))
        stuck = counts["pending"] + counts["leased"]
        if stuck:
            raise BrokenPromiseError("nothing is stuck", f"{stuck} prompts")
        again = self.calls.counts["again after a death"]
        # Where two were awake at once, the one that woke up also gave up what it had just asked.
        if again > self.calls.in_the_air and not self.report.troubles["late"]:
            shown = f"{again} calls were made again, and the deaths had only {self.calls.in_the_air} in the air"
            raise BrokenPromiseError("a death costs what it had in the air, and no more", shown)
        life = await self.start("db", "check")
        await life.wait(START_SECONDS)
        if life.process.returncode != 0:
            raise BrokenPromiseError("the file is sound", life.said())

    def _judge_the_end(self, condemned: int) -> None:
        wanted = self.options.poison if self.births.poison is not None else 0
        innocent = [f"{key}: {error}" for key, error in self.last.failed.items() if CONDEMNED not in error]
        if innocent or condemned > wanted:
            raise BrokenPromiseError(
                "no innocent prompt fails", few(innocent) or f"{condemned} of {wanted} were condemned"
            )
        if condemned < wanted:
            raise BrokenPromiseError("what nobody survives is failed", f"{condemned} of {wanted} were condemned")

    def _count_database(self) -> None:
        counts, report = self.last.counts, self.report
        condemned = sum(CONDEMNED in error for error in self.last.failed.values())
        report.prompts += len(self.last.states)
        report.results += counts["done"]
        report.cancelled += counts["cancelled"]
        report.failed += counts["failed"] - condemned
        report.poisoned += condemned
        report.stuck += counts["pending"] + counts["leased"]
        report.stale += self.last.stale
        report.looks += self.ledger.looks
        report.look_seconds += self.ledger.seconds

    def _gather(self) -> None:
        self.report.calls = self.calls.counts
        self.report.in_the_air = self.calls.in_the_air
        self.report.most_in_the_air = self.calls.most_in_the_air

    @property
    def switches_path(self) -> Path:
        """Where the switches are."""
        return self.folder / "switches"

    def _configuration(self, life: str) -> str:
        """A configuration whose requests bear the name of the life."""
        workers = [each | {"api_key": life, "context_length": 8192} for each in self.fleet.workers]
        return json.dumps(
            {
                "workers": workers,
                "models": {"m": ["m", "m:latest"]},
                "health_check_interval": 2,
                "request_timeout": 10,
                "max_retries": self.options.max_retries,
            }
        )


def _tell(line: str) -> None:
    """Progress, on a terminal alone on one line."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
