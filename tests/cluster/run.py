"""A run: a job, those who work it, what befalls them, and the judgement at the end."""

import asyncio
import math
import shutil
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.papers import Papers
from tests.cluster.coordinators import Coordinators, Life
from tests.cluster.faults import ASLEEP_FOR_SECONDS, Faults
from tests.cluster.options import Options
from tests.cluster.report import Report
from tests.cluster.servers import Fleet
from tests.cluster.watch import HELD, Watch
from tests.postgres_server import PostgresServer, running

QUESTIONS = 10
LOOK_EVERY_SECONDS = 2.0
END_WITHIN_SECONDS = 20.0
"""So long after its job a coordinator may take to end, once it is awake."""


@dataclass(slots=True)
class Run:
    """One run in `folder`; `report` is filled as it goes."""

    options: Options
    folder: Path
    report: Report
    _fleet: Fleet = field(init=False)
    _coordinators: Coordinators = field(init=False)
    _watch: Watch = field(init=False)
    _faults: Faults = field(init=False)
    _began: float = 0.0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """All of it; raises BrokenPromiseError as soon as something is amiss."""
        with running("--durable") as server, server.database() as url:
            await self._run(server, url)

    async def _run(self, server: PostgresServer, url: str) -> None:
        options, calls = self.options, self.report.calls
        self._fleet = Fleet(calls, options.seed)
        self._coordinators = Coordinators(url, self.folder, self._fleet)
        self._watch = Watch(url, calls)
        self._faults = Faults(
            coordinators=self._coordinators,
            server=server,
            watch=self._watch,
            calls=calls,
            rng=Random(f"faults {options.seed}"),
            between=options.between,
            stops=options.stops,
            done=self._done,
            follow=self._begin,
        )
        self._began = time.monotonic()
        try:
            await self._fleet.start()
            papers = Papers(self.folder / "papers", Random(f"papers {options.seed}"))
            folder = papers.write("all", math.ceil(options.prompts / QUESTIONS))
            await self._coordinators.submit(folder, papers.ask(folder, QUESTIONS))
            self._began = time.monotonic()
            await self._work()
        finally:
            self.report.seconds = time.monotonic() - self._began
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._coordinators.end()
            await self._watch.close()
            await self._fleet.stop()
            self._count()

    async def _work(self) -> None:
        places = [
            self._begin(f"place {place}", self._coordinators.keep_one(place, self._may_end))
            for place in range(self.options.coordinators)
        ]
        weather = self._begin("weather", self._fleet.change())
        trouble = self._begin("faults", self._faults.go_on())
        try:
            async with asyncio.timeout(self.options.longest):
                while not await self._finished():
                    await self._look()
                    await asyncio.sleep(LOOK_EVERY_SECONDS)
        except TimeoutError:
            raise BrokenPromiseError("nothing is stuck", await self._watch.picture()) from None
        ended = time.monotonic()
        weather.cancel()
        trouble.cancel()
        self._coordinators.finished = True
        awake = asyncio.wait(places, timeout=ASLEEP_FOR_SECONDS + END_WITHIN_SECONDS)
        _, left = await awake
        self.report.ended_within = time.monotonic() - ended
        await self._look()
        if left:
            logs = ", ".join(str(life.log) for life in self._coordinators.alive())
            shown = f"{logs}\n{await self._watch.picture()}"
            raise BrokenPromiseError("a coordinator ends when its jobs have ended", shown)
        await self._judge()

    async def _finished(self) -> bool:
        return not await self._watch.ask("SELECT 1 FROM jobs WHERE finished_at IS NULL")

    async def _may_end(self, life: Life) -> bool:
        return self._faults.excused(life) or await self._finished()

    async def _look(self) -> None:
        """Look at everything; raises BrokenPromiseError."""
        await self._watch.look()
        for task in [task for task in self._tasks if task.done() and not task.cancelled()]:
            self._tasks.remove(task)
            task.result()
        for broken in self._fleet.broken():
            raise broken
        await self._note()

    async def _note(self) -> None:
        """Keep how far it is, and whose the workers are."""
        at = time.monotonic() - self._began
        line = f"{at:6.1f} s: {dict(self._watch.counts)}, {dict(self._faults.counts)}"
        held = await self._watch.ask(HELD)
        with (self.folder / "timeline.txt").open("a") as file:
            file.write("\n  ".join([line, *(str(dict(row)) for row in held)]) + "\n")
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)

    async def _judge(self) -> None:
        states = self._watch.counts
        wrong = {state: number for state, number in states.items() if state != "done"}
        if wrong or states["done"] != self.options.prompts:
            errors = await self._watch.ask("SELECT DISTINCT error FROM prompts WHERE state = 'failed' LIMIT 5")
            raise BrokenPromiseError("every prompt is answered", f"{wrong}, {[row[0] for row in errors]}")
        open_attempts = await self._watch.ask("SELECT id, coordinator_id FROM attempts WHERE outcome IS NULL")
        if open_attempts:
            raise BrokenPromiseError("every attempt has an end", f"{len(open_attempts)}: {open_attempts[:5]}")
        self.report.calls.judge(await self._watch.answered_by())

    def _begin(self, name: str, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(what, name=name)
        self._tasks.add(task)
        return task

    def _done(self) -> float:
        return self._watch.counts["done"] / self.options.prompts

    def _count(self) -> None:
        report, watch = self.report, self._watch
        report.faults, report.cut, report.away = self._faults.counts, self._faults.cut, self._faults.away
        report.within = self._faults.within
        report.taken_back, report.excused, report.looks = watch.taken_back, watch.excused, watch.looks
        report.states = watch.counts
        report.lives = len(self._coordinators.lives) - 1
