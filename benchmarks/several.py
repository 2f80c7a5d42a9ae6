"""What coordinators cost each other that work one PostgreSQL database.

    uv run --group test python -m benchmarks.several
    uv run --group test python -m benchmarks.several --coordinators 1,2,4 --rate 25 --runs 5
    uv run --group test python -m benchmarks.several --db postgresql://postgres@127.0.0.1/empty

So many times `distllm resume` works one job, each with a stub server of its own that takes a second for an answer and
gives so many of them a second. What they ask for grows with their number, and must not fill the machine: `busy` is the
share of all its cores that was not idle, whoever used them. For each number, in turns and after a warm-up, what happens
within a window of time:

    prompts/s          answers that the stubs gave, and the share of what they could
    CPU a prompt       of the coordinators and of PostgreSQL, as Linux counts their time; the starts are not in it
    commits a prompt   of the database
    lock waits         how long transactions waited for the locks of others, a prompt; found by asking pg_stat_activity
                       every ten milliseconds who waits for a lock, on a connection whose own time is not counted

Ends with the growth of the CPU time from the first number to the last, and says which goals are met.
"""

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.cpu import cpu_of, idle_seconds
from benchmarks.dispatch import answers_of
from benchmarks.figures import Figure, as_ms, at_most, table, times
from benchmarks.places import POSTGRES, SQLITE, Databases, OnServer, add_db, as_option, open_databases
from benchmarks.processes import serving
from benchmarks.prompts import research
from benchmarks.stub import MODEL
from benchmarks.through_distllm import store_job
from benchmarks.waiting import Watcher, watching
from distllm.domain.places import DatabasePlace

ANSWER_SECONDS = 1.0
PAPER_CHARACTERS, MAX_TOKENS = 1000, 100
SPARE = 1.5
"""So many times as many prompts as should be answered, that none runs out of them."""

FIRST_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen of so many coordinators in some seconds."""

    seconds: float
    prompts: int
    coordinators_cpu: float
    server_cpu: float
    commits: int
    waited: float
    busy: float

    @property
    def cpu(self) -> float:
        """Seconds of CPU time a prompt."""
        return (self.coordinators_cpu + self.server_cpu) / self.prompts


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.several", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coordinators", type=_numbers, default=[1, 2, 4], help="numbers of them (1,2,4)")
    parser.add_argument("--rate", type=int, default=25, help="answers a second for each coordinator (25)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, taken in turns (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is looked at (20)")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds from its first answer on (5)")
    add_db(parser, POSTGRES)
    given = parser.parse_args()
    if given.db == SQLITE:
        parser.error("one coordinator at a time works a database of SQLite")
    if min(given.rate, given.runs, given.seconds) <= 0 or given.warm_up < 0:
        parser.error("--rate, --runs and --seconds must be more than 0, and --warm-up not less")
    # What the ends of connections have to say is no news here.
    logging.disable()
    numbers: list[int] = given.coordinators
    with tempfile.TemporaryDirectory() as folder, open_databases(given.db, Path(folder)) as databases:
        assert isinstance(databases, OnServer)
        windows = _measure(databases, Path(folder), given)
    print(f"{databases.said}, {os.cpu_count()} cores; {given.rate} answers/s a coordinator; {given.runs} runs in turns")
    print(table(numbers, _figures(windows, given.rate), "coordinators"))
    cpu = {number: sorted(1000 * each.cpu for each in found) for number, found in windows.items()}
    print("ms of CPU a prompt, least and most: " + ", ".join(f"{n}: {c[0]:.2f} to {c[-1]:.2f}" for n, c in cpu.items()))


def _figures(windows: dict[int, list[Window]], rate: int) -> list[Figure]:
    found = windows.values()
    cpu = [median(each.cpu for each in runs) for runs in found]
    waits = [median(each.waited / each.prompts for each in runs) for runs in found]
    shares = [wait / spent for wait, spent in zip(waits, cpu, strict=True)]
    rates = [median(each.prompts / each.seconds for each in runs) for runs in found]
    reached = [each / (number * rate) for number, each in zip(windows, rates, strict=True)]
    coordinators = [median(each.coordinators_cpu / each.prompts for each in runs) for runs in found]
    server = [median(each.server_cpu / each.prompts for each in runs) for runs in found]
    commits = [median(each.commits / each.prompts for each in runs) for runs in found]
    return [
        Figure("prompts/s", rates, lambda value: f"{value:.1f}"),
        Figure("of what the servers could", reached, _as_share),
        Figure("CPU a prompt", cpu, as_ms, times(1.15)),
        Figure("of that, coordinators", coordinators, as_ms),
        Figure("of that, PostgreSQL", server, as_ms),
        Figure("commits a prompt", commits, lambda value: f"{value:.2f}"),
        Figure("lock waits a prompt", waits, as_ms),
        Figure("lock waits / CPU", shares, _as_share, at_most(0.05, "5 %")),
        Figure("busy", [median(each.busy for each in runs) for runs in found], _as_share),
    ]


def _measure(databases: OnServer, folder: Path, given: argparse.Namespace) -> dict[int, list[Window]]:
    numbers: list[int] = given.coordinators
    prompts = max(numbers) * given.rate * (given.warm_up + given.seconds) * SPARE
    stored, preset = databases.new("stored"), research()
    papers = round(prompts / len(preset.templates)) + max(numbers) * given.rate
    asyncio.run(store_job(stored, preset, papers, PAPER_CHARACTERS, MODEL, MAX_TOKENS))
    windows: dict[int, list[Window]] = {number: [] for number in numbers}
    for run in range(given.runs):
        # Forwards and backwards, so that a machine that slows down favours nobody.
        for number in numbers[:: -1 if run % 2 else 1]:
            copy = databases.copy(stored, "worked")
            with (
                _working(copy, folder, number, given.rate) as (pids, ports),
                watching(databases.url, copy.database) as watcher,
            ):
                window = _look(databases, pids, ports, watcher, given.warm_up, given.seconds)
            databases.drop(copy)
            windows[number].append(window)
            print(f"run {run + 1} of {given.runs}: {number}: {window}", file=sys.stderr, flush=True)
    return windows


@contextmanager
def _working(place: DatabasePlace, folder: Path, number: int, rate: int) -> Iterator[tuple[list[int], list[int]]]:
    """So many coordinators, each with a server of its own; their processes, and the servers' ports."""
    options = ("--slots", round(rate * ANSWER_SECONDS), "--seconds", ANSWER_SECONDS)
    command = [str(Path(sys.executable).with_name("distllm")), "--db", as_option(place), "resume"]
    with ExitStack() as stack:
        ports = [stack.enter_context(serving("benchmarks.stub", *options)).port for _ in range(number)]
        processes = []
        for each, port in enumerate(ports):
            home = folder / f"{each}"
            home.mkdir(exist_ok=True)
            workers = [{"id": f"w{each}", "type": "openai", "port": port}]
            (home / "workers.json").write_text(json.dumps({"workers": workers}), encoding="utf-8")
            process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield [process.pid for process in processes], ports


def _look(
    databases: Databases, pids: Sequence[int], ports: Sequence[int], watcher: Watcher, warm_up: float, seconds: float
) -> Window:
    until = time.monotonic() + FIRST_ANSWER_SECONDS
    while not all(answers_of([port]) for port in ports):
        assert time.monotonic() < until, "a coordinator answers nothing"
        time.sleep(0.1)
    time.sleep(warm_up)
    before = _state(databases, pids, ports, watcher)
    time.sleep(seconds)
    after = _state(databases, pids, ports, watcher)
    took, prompts, coordinators, server, commits, waited, idle = (b - a for a, b in zip(before, after, strict=True))
    busy = 1 - idle / took / (os.cpu_count() or 1)
    return Window(took, round(prompts), coordinators, server, round(commits), waited, busy)


def _state(
    databases: Databases, pids: Sequence[int], ports: Sequence[int], watcher: Watcher
) -> tuple[float, float, float, float, float, float, float]:
    seen = watcher.seen()
    server = databases.cpu_seconds() - cpu_of(seen.backend)
    coordinators = sum(map(cpu_of, pids))
    return time.monotonic(), answers_of(ports), coordinators, server, seen.commits, seen.waited, idle_seconds()


def _as_share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _numbers(text: str) -> list[int]:
    numbers = sorted({int(number) for number in text.split(",")})
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError("at least one coordinator is needed")
    return numbers


if __name__ == "__main__":
    main()
