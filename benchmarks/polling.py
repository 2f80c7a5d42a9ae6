"""What many clients cost a service that works: its dispatch with them, beside its dispatch without.

    uv run python -m benchmarks.polling
    uv run python -m benchmarks.polling --clients 1000 --every 5

Two stub servers in processes of their own answer at once. A service, `distllm serve` in a process of its own, works a
stored job of the research preset's five questions about made-up papers. In every other run clients of one more process
each ask for the job every few seconds, and others listen to the events. Runs with and without them take turns, and only
the ratio of neighbours means anything. CPU time is that of the service, all its threads and its start included.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from benchmarks.processes import ROOT, serving
from benchmarks.prompts import research
from benchmarks.stub import MODEL
from benchmarks.through_distllm import store_job

SERVERS, SLOTS = 2, 25
PAPER_CHARACTERS, MAX_TOKENS = 1000, 100
LOOK_EVERY_SECONDS = 0.05
JOB = "/api/v1/jobs/1"


class Timing(NamedTuple):
    """One run: prompts a second between the first answer and the last, and the service's CPU seconds."""

    rate: float
    cpu: float


class Crowd(NamedTuple):
    """Clients: so many ask, each every few seconds, and so many listen."""

    clients: int
    every: float
    listeners: int


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.polling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=5000, help="prompts of a run, five about a paper (5000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, taken in turns (5)")
    parser.add_argument("--clients", type=int, default=200, help="clients that ask where the job stands (200)")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between the questions of a client (2)")
    parser.add_argument("--listeners", type=int, default=20, help="clients that listen to the events (20)")
    parser.add_argument("--crowd", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    crowd = Crowd(given.clients, given.every, given.listeners)
    if given.crowd is not None:
        asyncio.run(gather_round(given.crowd, crowd))
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        papers = max(1, given.prompts // len(research().templates))
        asyncio.run(store_job(folder / "job.db", research(), papers, PAPER_CHARACTERS, MODEL, MAX_TOKENS))
        with closing(sqlite3.connect(folder / "job.db")) as connection, connection:
            connection.execute("UPDATE jobs SET paused_at = submitted_at")
        ports = [stack.enter_context(serving("benchmarks.stub", "--slots", SLOTS)).port for _ in range(SERVERS)]
        workers = [{"id": f"w{number}", "type": "openai", "port": port} for number, port in enumerate(ports)]
        (folder / "workers.json").write_text(json.dumps({"workers": workers}), encoding="utf-8")
        alone, polled = list[Timing](), list[Timing]()
        for number in range(given.runs):
            # Forwards and backwards, so that a machine that slows down favours neither.
            for timings, around in [(alone, None), (polled, crowd)][:: -1 if number % 2 else 1]:
                timings.append(run(folder, around))
            print(f"run {number + 1}: {alone[-1].rate:,.0f} prompts/s alone, {polled[-1].rate:,.0f} polled", flush=True)
    print(f"{given.clients} clients that ask every {given.every:g} s, {given.listeners} that listen:")
    print(f"polled / alone: {_spread([b.rate / a.rate for a, b in zip(alone, polled, strict=True)])} in prompts/s")
    print(
        f"polled / alone: {_spread([b.cpu / a.cpu for a, b in zip(alone, polled, strict=True)])} in CPU of the service"
    )


def run(folder: Path, crowd: Crowd | None) -> Timing:
    """Have a service work a copy of the job, with a crowd around it or alone."""
    database = folder / "run.db"
    for file in folder.glob("run.db*"):
        file.unlink()
    shutil.copy(folder / "job.db", database)
    command = [Path(sys.executable).with_name("distllm"), "--db", database, "--config", folder / "workers.json"]
    with subprocess.Popen(
        [*map(str, command), "serve", "--port", "0", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as service:
        assert service.stdout is not None
        url = json.loads(service.stdout.readline())["url"]
        with nullcontext() if crowd is None else surrounded(url, crowd):
            # Until here the job was paused, so that all of it is worked with the crowd around.
            urlopen(Request(f"{url}{JOB}/resume", method="POST")).close()
            until_ended(database)
            service.send_signal(signal.SIGTERM)
            _, _, usage = os.wait4(service.pid, 0)
    with closing(sqlite3.connect(database)) as connection:
        first, last, answers = connection.execute(
            "SELECT min(finished_at), max(finished_at), count(*) FROM results"
        ).fetchone()
    return Timing(answers / (last - first), usage.ru_utime + usage.ru_stime)


def until_ended(database: Path) -> None:
    """Wait for the end of the job, at no cost to the service."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        while connection.execute("SELECT finished_at FROM jobs").fetchone() == (None,):
            time.sleep(LOOK_EVERY_SECONDS)


@contextmanager
def surrounded(url: str, crowd: Crowd) -> Iterator[None]:
    """Have a crowd around a service, in a process of its own."""
    options = ["--clients", crowd.clients, "--every", crowd.every, "--listeners", crowd.listeners]
    command = [sys.executable, "-m", "benchmarks.polling", "--crowd", url, *map(str, options)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        it.stdout.readline()
        try:
            yield
        finally:
            it.kill()


async def gather_round(url: str, crowd: Crowd) -> None:
    """Ask and listen until killed, or until the service is gone; print a line once all have asked or are listening.

    Everyone has a connection, on which bare requests are written: the machine's time is the service's, not the crowd's.
    """
    at = urlsplit(url)
    random, here = Random(1), asyncio.Semaphore(0)

    async def open_stream(path: str) -> tuple[asyncio.StreamReader, Callable[[], Awaitable[bytes]]]:
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        request = f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode()

        async def head() -> bytes:
            writer.write(request)
            found = await reader.readuntil(b"\r\n\r\n")
            assert found.startswith(b"HTTP/1.1 200 "), found
            return found.lower()

        return reader, head

    async def ask() -> None:
        await asyncio.sleep(random.uniform(0, crowd.every))
        reader, head = await open_stream(JOB)
        here.release()
        while True:
            length = re.search(rb"content-length: (\d+)", await head())
            assert length is not None
            await reader.readexactly(int(length[1]))
            await asyncio.sleep(crowd.every)

    async def listen() -> None:
        reader, head = await open_stream("/api/v1/events")
        await head()
        here.release()
        while await reader.read(2**18):
            pass

    asks = [ask() for _ in range(crowd.clients)] + [listen() for _ in range(crowd.listeners)]
    together = asyncio.gather(*asks, return_exceptions=True)
    for _ in asks:
        await here.acquire()
    print("all are here", flush=True)
    for failure in await together:
        if not isinstance(failure, None | OSError | asyncio.IncompleteReadError):
            raise failure


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


if __name__ == "__main__":
    main()
