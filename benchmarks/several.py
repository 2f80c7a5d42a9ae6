"""What coordinators cost each other that work one PostgreSQL database.

    uv run --group test python -m benchmarks.several
    uv run --group test python -m benchmarks.several --coordinators 1,2,4 --slots 10 --runs 5
    uv run --group test python -m benchmarks.several --workers 250 --slots 1 --answer-seconds 10 --warm-up 30
    uv run --group test python -m benchmarks.several --db postgresql://postgres@127.0.0.1/empty

So many times `distllm resume` works one job, each on the same workers, of which there are so many for each of them:
addresses of a stub server that takes a second for an answer. What they ask for grows with their number, and must not
fill the machine: `busy` is the share of all its cores that was not idle, whoever used them. For each number, in turns
and after a warm-up, what happens within a window of time:

    prompts/s          answers that the stub gave, and the share of what it could
    CPU a prompt       of the coordinators and of PostgreSQL, as Linux counts their time; the starts are not in it
    transactions       of the database, a prompt; those that only read too
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
from benchmarks.prompts import ask, research
from benchmarks.stub import MODEL, host
from benchmarks.through_distllm import store_job
from benchmarks.waiting import Watcher, watching
from distllm.domain.places import PostgresUrl

PAPER_CHARACTERS, MAX_TOKENS = 1000, 100
START_SECONDS = 60.0

_AT_WORK = "SELECT count(DISTINCT coordinator_id) AS coordinators FROM attempts WHERE outcome = 'done'"


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen of so many coordinators in some seconds."""

    seconds: float
    prompts: int
    coordinators_cpu: float
    server_cpu: float
    transactions: int
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
    parser.add_argument("--workers", type=int, default=1, help="workers for each coordinator, which share all (1)")
    parser.add_argument("--slots", type=int, default=25, help="of each worker (25)")
    parser.add_argument("--answer-seconds", type=float, default=1.0, help="how long an answer takes (1)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, taken in turns (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is looked at (20)")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds from when all of them are at work (5)")
    add_db(parser, POSTGRES)
    given = parser.parse_args()
    if given.db == SQLITE:
        parser.error("one coordinator at a time works a database of SQLite")
    if min(given.workers, given.slots, given.answer_seconds, given.runs, given.seconds) <= 0 or given.warm_up < 0:
        parser.error("--workers, --slots, --answer-seconds, --runs and --seconds must be more than 0")
    # What the ends of connections have to say is no news here.
    logging.disable()
    numbers: list[int] = given.coordinators
    with tempfile.TemporaryDirectory() as folder, open_databases(given.db, Path(folder)) as databases:
        assert isinstance(databases, OnServer)
        windows = _measure(databases, Path(folder), given)
    rate = given.workers * given.slots / given.answer_seconds
    print(f"{databases.said}, {os.cpu_count()} cores, {given.runs} runs in turns")
    print(f"for each coordinator {given.workers} x {given.slots} slots, {rate:g} answers a second")
    print(table(numbers, _figures(windows, rate), "coordinators"))
    cpu = {number: sorted(1000 * each.cpu for each in found) for number, found in windows.items()}
    print("ms of CPU a prompt, least and most: " + ", ".join(f"{n}: {c[0]:.2f} to {c[-1]:.2f}" for n, c in cpu.items()))


def _figures(windows: dict[int, list[Window]], rate: float) -> list[Figure]:
    found = windows.values()
    cpu = [median(each.cpu for each in runs) for runs in found]
    waits = [median(each.waited / each.prompts for each in runs) for runs in found]
    shares = [wait / spent for wait, spent in zip(waits, cpu, strict=True)]
    rates = [median(each.prompts / each.seconds for each in runs) for runs in found]
    reached = [each / (number * rate) for number, each in zip(windows, rates, strict=True)]
    coordinators = [median(each.coordinators_cpu / each.prompts for each in runs) for runs in found]
    server = [median(each.server_cpu / each.prompts for each in runs) for runs in found]
    transactions = [median(each.transactions / each.prompts for each in runs) for runs in found]
    return [
        Figure("prompts/s", rates, lambda value: f"{value:.1f}"),
        Figure("of what the servers could", reached, _as_share),
        Figure("CPU a prompt", cpu, as_ms, times(1.15)),
        Figure("of that, coordinators", coordinators, as_ms),
        Figure("of that, PostgreSQL", server, as_ms),
        Figure("transactions a prompt", transactions, lambda value: f"{value:.2f}"),
        Figure("lock waits a prompt", waits, as_ms),
        Figure("lock waits / CPU", shares, _as_share, at_most(0.05, "5 %")),
        Figure("busy", [median(each.busy for each in runs) for runs in found], _as_share),
    ]


def _measure(databases: OnServer, folder: Path, given: argparse.Namespace) -> dict[int, list[Window]]:
    numbers: list[int] = given.coordinators
    slots = max(numbers) * given.workers * given.slots
    seconds = given.warm_up + given.seconds + START_SECONDS
    stored, preset = databases.new("stored"), research()
    papers = round(slots * (1 + seconds / given.answer_seconds / len(preset.templates)))
    asyncio.run(store_job(stored, preset, papers, PAPER_CHARACTERS, MODEL, MAX_TOKENS))
    windows: dict[int, list[Window]] = {number: [] for number in numbers}
    for run in range(given.runs):
        # Forwards and backwards, so that a machine that slows down favours nobody.
        for number in numbers[:: -1 if run % 2 else 1]:
            copy = databases.copy(stored, "worked")
            with (
                _working(copy, folder, number, given) as (pids, port),
                watching(databases.url, copy.database) as watcher,
            ):
                _all_at_work(copy, number)
                time.sleep(given.warm_up)
                before = _state(databases, pids, port, watcher)
                time.sleep(given.seconds)
                windows[number].append(_between(before, _state(databases, pids, port, watcher)))
            databases.drop(copy)
            print(f"run {run + 1} of {given.runs}: {number}: {windows[number][-1]}", file=sys.stderr, flush=True)
    return windows


@contextmanager
def _working(
    place: PostgresUrl, folder: Path, number: int, given: argparse.Namespace
) -> Iterator[tuple[list[int], int]]:
    """So many coordinators: their processes, and the port of their workers."""
    hosts = number * given.workers
    options = ("--slots", given.slots, "--seconds", given.answer_seconds, "--hosts", hosts)
    command = [str(Path(sys.executable).with_name("distllm")), "--db", as_option(place), "resume"]
    with serving("benchmarks.stub", *options) as stub, ExitStack() as stack:
        workers = [{"id": f"w{n}", "type": "openai", "host": host(n), "port": stub.port} for n in range(hosts)]
        (folder / "workers.json").write_text(json.dumps({"workers": workers}), encoding="utf-8")
        processes = []
        for _ in range(number):
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield [process.pid for process in processes], stub.port


def _all_at_work(place: PostgresUrl, number: int) -> None:
    until = time.monotonic() + START_SECONDS
    while ask(place, _AT_WORK) != [{"coordinators": number}]:
        if time.monotonic() > until:
            raise SystemExit(f"not all of {number} coordinators have an answer after {START_SECONDS:g} s")
        time.sleep(0.5)


def _state(databases: Databases, pids: Sequence[int], port: int, watcher: Watcher) -> tuple[float, ...]:
    seen = watcher.seen()
    server = databases.cpu_seconds() - cpu_of(seen.backend)
    coordinators = sum(map(cpu_of, pids))
    return time.monotonic(), answers_of([port]), coordinators, server, seen.commits, seen.waited, idle_seconds()


def _between(before: tuple[float, ...], after: tuple[float, ...]) -> Window:
    seconds, prompts, coordinators, server, commits, waited, idle = (b - a for a, b in zip(before, after, strict=True))
    busy = 1 - idle / seconds / (os.cpu_count() or 1)
    return Window(seconds, round(prompts), coordinators, server, round(commits), waited, busy)


def _as_share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _numbers(text: str) -> list[int]:
    numbers = sorted({int(number) for number in text.split(",")})
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError("at least one coordinator is needed")
    return numbers


if __name__ == "__main__":
    main()
