"""How soon a coordinator leases again after one that held many leases was killed.

    uv run --group test python -m benchmarks.restart
    uv run --group test python -m benchmarks.restart --leases 50000

A process stores a job, leases all its prompts, has all of them in flight, and kills itself with SIGKILL. Then the
real `distllm resume` is started, and timed until its first request arrives at a server on the loopback; beside it the
same on a database where nobody had leased anything, so that what the leases cost is the difference.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from distllm.domain.models import Ask
from distllm.store.attempts import record_sent
from distllm.store.claims import claim
from distllm.store.migrate import upgrade
from tests.fakes.server import FakeServer
from tests.store.store_kit import HUGE, MODEL, Store, add_job

QUESTIONS = ("findings", "limits", "method", "question", "data")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=10_000, help="how many prompts the killed one held (10000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, taken in turns (5)")
    given = parser.parse_args()
    # Clients that are killed are no news here.
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        seconds = asyncio.run(_measure(Path(folder), given.leases, given.runs))
    fresh, killed = median(seconds[0]), median(seconds[given.leases])
    print(f"from the start of `distllm resume` to its first request, {given.runs} runs, median (min, max) in seconds")
    for leases, found in seconds.items():
        print(f"{leases:>8,} leases of a killed coordinator: {median(found):.2f} ({min(found):.2f}, {max(found):.2f})")
    print(f"ratio {killed / fresh:.2f}; taking back {given.leases:,} leases cost {killed - fresh:.2f} s")


async def _measure(folder: Path, leases: int, runs: int) -> dict[int, list[float]]:
    seconds: dict[int, list[float]] = {0: [], leases: []}
    for run in range(runs):
        for held, found in seconds.items():
            place = folder / f"{held}-{run}"
            place.mkdir()
            _store(place / "distllm.db", leases)
            die_holding(place / "distllm.db", held)
            found.append(await first_request(place))
    return seconds


def _store(path: Path, prompts: int) -> None:
    upgrade(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        papers = [f"paper {number} has a few words" for number in range(prompts // len(QUESTIONS))]
        add_job(Store(path, connection), papers, QUESTIONS, params={"temperature": 0.0})


def die_holding(path: Path, held: int, model: str = MODEL) -> None:
    """Have a process lease and send `held` prompts of the jobs at `path`, and kill itself."""
    victim = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, held, model))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL, victim.exitcode


def _hold(path: Path, held: int, model: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        store = Store(path, connection)
        me, worker = store.coordinator(time.time()), store.worker("studio")
        ask = Ask(worker, {model: HUGE}, len(QUESTIONS))
        while held:
            groups = store.write(lambda tx: claim(tx, [ask] * 100, [], me, time.time()))
            sent = [store.unwritten(me, worker, lease) for group in groups for lease in group.leases]
            store.write(lambda tx, sent=sent: record_sent(tx, sent))  # type: ignore[misc]
            held -= len(sent)
        # Killed with its log as it is, as a coordinator would be.
        os.kill(os.getpid(), signal.SIGKILL)


async def first_request(place: Path, model: str = MODEL) -> float:
    """Seconds from the start of `distllm resume` in a folder until its first request arrives."""
    async with FakeServer(model=model, slots=50, seconds_per_token=1.0) as server:
        worker = {"id": "w", "type": "openai", "port": server.port}
        (place / "workers.json").write_text(json.dumps({"workers": [worker]}))
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("distllm"),
            "resume",
            cwd=place,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await server.until(lambda: bool(server.requests), seconds=60)
        seconds = time.monotonic() - began
        process.kill()
        await process.wait()
    return seconds


if __name__ == "__main__":
    main()
