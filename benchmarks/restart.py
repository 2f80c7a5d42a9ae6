"""How soon a coordinator leases again after one that held many leases was killed.

    uv run --group test python -m benchmarks.restart
    uv run --group test python -m benchmarks.restart --leases 50000
    uv run --group test python -m benchmarks.restart --db postgres

A process stores a job, leases all its prompts, has all of them in flight, and kills itself with SIGKILL. Then the
real `distllm resume` is started, and timed until its first request arrives at a server on the loopback; beside it the
same on a database where nobody had leased anything, so that what the leases cost is the difference.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.fresh import SPAWN
from benchmarks.places import Databases, add_db, as_option, open_databases
from benchmarks.prompts import research
from benchmarks.stub import MODEL
from benchmarks.through_distllm import store_job
from distllm.domain.models import Ask
from distllm.domain.places import DatabasePlace
from distllm.store.attempts import Sent, record_sent
from distllm.store.claims import claim
from distllm.store.database import open_database
from distllm.store.fleet import know_worker, register
from distllm.store.tx import Tx
from tests.fakes.server import FakeServer

SEATS, SENT_TOGETHER = 100, 5
WINDOW = 1_000_000
PAPER_CHARACTERS, MAX_TOKENS = 500, 100


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=10_000, help="how many prompts the killed one held (10000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, taken in turns (5)")
    add_db(parser)
    given = parser.parse_args()
    # Clients that are killed are no news here.
    logging.disable()
    with tempfile.TemporaryDirectory() as folder, open_databases(given.db, Path(folder)) as databases:
        seconds = _measure(databases, Path(folder), given.leases, given.runs)
    fresh, killed = median(seconds[0]), median(seconds[given.leases])
    print(f"from the start of `distllm resume` to its first request, {given.runs} runs on {databases.said}")
    print("median (min, max) in seconds")
    for leases, found in seconds.items():
        print(f"{leases:>8,} leases of a killed coordinator: {median(found):.2f} ({min(found):.2f}, {max(found):.2f})")
    print(f"ratio {killed / fresh:.2f}; taking back {given.leases:,} leases cost {killed - fresh:.2f} s")


def _measure(databases: Databases, folder: Path, leases: int, runs: int) -> dict[int, list[float]]:
    preset = research()
    stored = databases.new("stored")
    papers = -(-leases // len(preset.templates))
    asyncio.run(store_job(stored, preset, papers, PAPER_CHARACTERS, MODEL, MAX_TOKENS))
    seconds: dict[int, list[float]] = {0: [], leases: []}
    for _ in range(runs):
        for held, found in seconds.items():
            copy = databases.copy(stored, "killed")
            die_holding(copy, held)
            found.append(asyncio.run(first_request(copy, folder)))
    return seconds


def die_holding(place: DatabasePlace, held: int, model: str = MODEL) -> None:
    """Have a process lease and send `held` prompts of the jobs at `place`, and kill itself."""
    victim = SPAWN.Process(target=_hold, args=(place, held, model))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL, victim.exitcode


def _hold(place: DatabasePlace, held: int, model: str) -> None:
    asyncio.run(_hold_and_die(place, held, model))


async def _hold_and_die(place: DatabasePlace, held: int, model: str) -> None:
    now = time.time()
    async with open_database(place) as database:
        heart = await database.heart()
        me = await database.write(lambda tx: register(tx, "here", os.getpid(), now)) if heart is None else heart.id
        worker = await database.write(lambda tx: know_worker(tx, "http://127.0.0.1:8080", "studio", "openai"))
        ask = Ask(worker, {model: WINDOW}, SENT_TOGETHER)
        ids = count((me << 32) + 1)

        def lease_and_send(tx: Tx) -> int:
            groups = claim(tx, [ask] * SEATS, [], me, now)
            leases = [lease for group in groups for lease in group.leases]
            record_sent(tx, [Sent(next(ids), lease, worker, me, now, lease.needs) for lease in leases])
            return len(leases)

        while held > 0:
            held -= await database.write(lease_and_send)
        if heart is not None:
            await heart.beat([], [], 0.0)
        # Killed with its log as it is, as a coordinator would be.
        os.kill(os.getpid(), signal.SIGKILL)


async def first_request(place: DatabasePlace, folder: Path, model: str = MODEL) -> float:
    """Seconds from the start of `distllm resume` until its first request arrives; its configuration is in `folder`."""
    async with FakeServer(model=model, slots=50, seconds_per_token=1.0) as server:
        worker = {"id": "w", "type": "openai", "port": server.port}
        (folder / "workers.json").write_text(json.dumps({"workers": [worker]}))
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("distllm"),
            "--db",
            as_option(place),
            "resume",
            cwd=folder,
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
