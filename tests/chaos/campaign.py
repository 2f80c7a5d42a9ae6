"""A campaign: rounds on one database after another, by a plan that the seed decides."""

import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.calls import Calls
from tests.chaos.checks import DONE_ONCE, NO_ANSWER_IS_LOST, Ledger
from tests.chaos.disk import Disk
from tests.chaos.ending import condemned, end
from tests.chaos.life import Births, strace
from tests.chaos.options import Options
from tests.chaos.papers import POISON, Papers
from tests.chaos.plan import IO, Round, make_plan
from tests.chaos.plants import plant
from tests.chaos.report import Report
from tests.chaos.rounds import play
from tests.chaos.servers import Fleet
from tests.chaos.stage import Stage
from tests.chaos.switches import Switches

CONTEXT = 8192


@dataclass(slots=True)
class Campaign:
    """One run, in `folder`; `report` is filled as it goes."""

    options: Options
    folder: Path
    report: Report
    papers: Papers = field(init=False)
    calls: Calls = field(init=False)
    switches: Switches = field(init=False)
    fleet: Fleet = field(init=False)
    _before: list[Path] = field(default_factory=list)
    _many: Path = field(init=False)
    _few: Path = field(init=False)

    async def run(self) -> Report:
        """All of it; raises BrokenPromiseError as soon as something is amiss."""
        options, began = self.options, time.monotonic()
        self.papers = Papers(self.folder / "papers", Random(f"papers {options.seed}"))
        self._many, self._few = self.papers.write("many", options.papers), self.papers.write("few", 10)
        self.calls = Calls(self.folder / "calls.log")
        if options.plant is not None:
            self._before = [plant(options.plant, self.folder / "planted")]
        rounds = make_plan(options)
        if any(each.death == IO for each in rounds) and strace(1) is None:
            self.report.left_out.append("io, which needs strace")
            rounds = [each for each in rounds if each.death != IO]
        self.switches = Switches(self.folder / "switches")
        self.fleet = await Fleet.start(
            seats=options.in_flight, answer_seconds=options.answer_seconds, seed=options.seed, log=self.calls.path
        )
        try:
            step = options.database_rounds
            starts = range(0, len(rounds), step)
            for number, at in enumerate(starts, 1):
                await self._one_database(
                    number, rounds[at : at + step], at, len(rounds), options.prompts // len(starts)
                )
        finally:
            await self.fleet.stop()
            self.switches.close()
            self.report.seconds = time.monotonic() - began
            self.report.calls = self.calls.counts
            self.report.in_the_air, self.report.most_in_the_air = self.calls.in_the_air, self.calls.most_in_the_air
        self.report.judge()
        return self.report

    async def _one_database(self, number: int, rounds: list[Round], done: int, in_all: int, prompts: int) -> None:
        """Rounds on one database, `prompts` at least, and its end."""
        stage = self._stage(number)
        self.calls.forget()
        self.report.databases += 1
        if any(each.trouble == "disk" for each in rounds) and not stage.disk.mount():
            self.report.left_out.append("a really full disk (none can be mounted here; the file was bounded instead)")
        try:
            for place, each in enumerate(rounds, done + 1):
                await play(stage, each)
                if place == 1 and self.options.poison:
                    # From now on nobody lives long, until it is found; others are in flight with it at first.
                    where = self.papers.write("poison", self.options.poison, mark=POISON)
                    await stage.store(self.papers.ask(where, 1))
                counts = stage.last.counts
                _tell(f"{place} of {in_all} rounds, {counts['done']:,} of {counts.total():,} prompts done")
            while len(stage.last.states) < prompts:
                await stage.store(self.papers.ask(self._many, self.options.questions))
            await end(stage)
        finally:
            self._count(stage)
            await stage.births.end()
            stage.ledger.close()
            stage.disk.unmount()

    def _stage(self, number: int) -> Stage:
        home, notes = self.folder / f"database{number}", self.folder / f"notes{number}"
        home.mkdir()
        notes.mkdir()
        poison = POISON if self.options.poison and number == 1 else None
        prefix = f"database{number}life"
        return Stage(
            options=self.options,
            report=self.report,
            fleet=self.fleet,
            papers=self.papers,
            calls=self.calls,
            switches=self.switches,
            births=Births(prefix, home, notes, self.folder / "switches", self._configuration, self._before, poison),
            ledger=Ledger(home / "distllm.db"),
            disk=Disk(home, self.switches),
            many=self._many,
            few=self._few,
        )

    def _configuration(self, life: str) -> str:
        """A configuration whose requests bear the name of the life."""
        workers = [each | {"api_key": life, "context_length": CONTEXT} for each in self.fleet.workers]
        return json.dumps(
            {
                "workers": workers,
                "models": {"m": ["m", "m:latest"]},
                "health_check_interval": 2,
                "request_timeout": 10,
                "max_retries": self.options.max_retries,
            }
        )

    def _count(self, stage: Stage) -> None:
        counts, report, poison = stage.last.counts, self.report, len(condemned(stage.last))
        report.prompts += counts.total()
        report.results += counts["done"]
        report.cancelled += counts["cancelled"]
        report.failed += counts["failed"] - poison
        report.poisoned += poison
        report.stuck += counts["pending"] + counts["leased"]
        report.stale += stage.last.stale
        report.lost += stage.ledger.count(NO_ANSWER_IS_LOST)
        report.twice += stage.ledger.count(DONE_ONCE)
        report.looks += stage.ledger.looks
        report.look_seconds += stage.ledger.seconds


def _tell(line: str) -> None:
    """Progress: one line that changes on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
