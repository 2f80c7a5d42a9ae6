"""What happens to a coordinator, or to what it stands on, before it is killed."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from random import Random
from signal import SIGCONT, SIGSTOP

from distllm.store.locks import coordinator_lock
from tests.chaos.broken import BrokenPromiseError
from tests.chaos.life import Life, until
from tests.chaos.stage import Stage

DAY_SECONDS = 86_400.0
COMMAND_SECONDS = 60.0

Trouble = Callable[[Stage, Life, Random], Awaitable[Life]]
"""Does it, and returns who is the coordinator afterwards."""


async def stop(stage: Stage, life: Life, rng: Random) -> Life:
    """Freeze it for a while."""
    life.held_up = True
    life.send(SIGSTOP)
    await asyncio.sleep(rng.uniform(0.1, 8.0) * stage.mean_seconds)
    life.send(SIGCONT)
    return life


async def misbehave(stage: Stage, life: Life, rng: Random) -> Life:
    """Servers fail, in this round alone."""
    await stage.fleet.tell("misbehave", rng.choice((0.05, 0.2, 0.5)))
    await asyncio.sleep(rng.uniform(1.0, 4.0))
    stage.disturbed = True
    return life


async def cut(stage: Stage, life: Life, rng: Random) -> Life:
    """Every connection to one server is reset, and it is away for a moment; perhaps another one too."""
    for _ in range(rng.randint(1, 3)):
        away = rng.uniform(0.0, 2.0) * stage.mean_seconds
        await stage.fleet.tell("cut", rng.randrange(5), away)
        await asyncio.sleep(rng.uniform(0.0, 2.0) * stage.mean_seconds)
    return life


async def disk(stage: Stage, life: Life, rng: Random) -> Life:
    """No room for a while."""
    life.held_up = True
    stage.disk.fill()
    try:
        await asyncio.sleep(rng.uniform(1.0, 10.0) * stage.mean_seconds)
    finally:
        stage.disk.free()
    return life


async def lock(stage: Stage, life: Life, rng: Random) -> Life:
    """Another program holds the write lock for 1 to 10 s, less where answers are quick."""
    life.held_up = True
    seconds = rng.uniform(1.0, 10.0) * min(1.0, stage.mean_seconds / 0.4)

    def hold() -> None:
        with closing(sqlite3.connect(life.database, timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    await asyncio.to_thread(hold)
    return life


async def second(stage: Stage, life: Life, rng: Random) -> Life:
    """Another one is started, follows, and takes over when the first is killed."""
    other = await stage.start("resume", *stage.open_jobs())
    if await until(lambda: stage.working(other) or "following it" in other.said() or other.over, 20):
        await asyncio.sleep(rng.uniform(0.5, 2.0) * stage.mean_seconds)
        await stage.look()
    if other.over:
        return life
    await life.kill(followed=True)
    stage.report.deaths["kill"] += 1
    await stage.check(life)
    await stage.leases(other)
    return other


async def clock(stage: Stage, life: Life, rng: Random) -> Life:
    """The time of day is wrong, by up to a day either way, until the round ends or sooner."""
    stage.switches.turn(clock=rng.choice((-1, 1)) * rng.uniform(0.1, 1.0) * DAY_SECONDS)
    await asyncio.sleep(rng.uniform(1.0, 6.0) * stage.mean_seconds)
    if rng.random() < 0.5:
        stage.switches.turn(clock=0.0)
    return life


async def told(stage: Stage, life: Life, rng: Random) -> Life:
    """A COMMIT that happened was told to have failed: the launcher does it, and what follows waits for a second."""
    life.held_up = True
    await until(lambda: life.hits() or life.over, 10)
    await asyncio.sleep(rng.uniform(1.0, 2.0))
    return life


async def people(stage: Stage, life: Life, rng: Random) -> Life:
    """Commands from elsewhere, in any order."""
    jobs = stage.open_jobs() or ["1"]
    job = rng.choice(jobs)
    commands = {
        "status": ["status"],
        "status of one": ["status", job],
        "check": ["db", "check"],
        "query": ["query", "SELECT count(*) FROM answers"],
        "pause": ["pause", job],
        "retry": ["retry", job],
    }
    for name in rng.sample([*commands, "cancel"], 3):
        if name == "cancel":
            await _cancel(stage)
            continue
        look_only = name in ("status", "status of one", "check", "query")
        await _run(stage, commands[name], codes=(0,) if look_only else (0, 1))
        if name == "pause":
            await stage.look()
            # Named, it goes on; and whoever names it follows the coordinator, until it is killed.
            follower = await stage.start("resume", job)
            await until(lambda: "following it" in follower.said() or follower.over, 20)  # noqa: B023 - awaited here
            await follower.kill(followed=True)
            stage.report.deaths["kill of a follower"] += 1
    return life


async def _cancel(stage: Stage) -> None:
    """A small job is stored, and cancelled at once."""
    life = await _run(stage, [*stage.papers.ask(stage.few, 1), "--detach", "--json"])
    job = str(json.loads(life.said().splitlines()[-1])["job_id"])
    await _run(stage, ["cancel", job], codes=(0, 1))


async def _run(stage: Stage, arguments: list[str], codes: tuple[int, ...] = (0,)) -> Life:
    life = await stage.start(*arguments)
    if not await life.wait(COMMAND_SECONDS) or life.process.returncode not in codes:
        raise BrokenPromiseError(
            "a command does what it says", f"code {life.process.returncode}: {life.said()[-2000:]}"
        )
    return life


async def late(stage: Stage, life: Life, rng: Random) -> Life:
    """It is frozen, its lock is taken from it, another one takes its leases and asks again; then it wakes up.

    As on a file system whose locks do not hold. What was answered meanwhile comes late, under leases that are
    no longer the newest.
    """
    life.held_up = True
    await asyncio.sleep(rng.uniform(1.0, 4.0) * stage.mean_seconds)
    life.send(SIGSTOP)
    await asyncio.sleep(0.1)
    frozen = await stage.look()
    stage.calls.bury(life.name, time.monotonic(), frozen, excused=True)
    lock_file = coordinator_lock(life.database)
    if lock_file.holder() == life.process.pid:
        stage.lock_file.unlink()
    other = await stage.start("resume", *stage.open_jobs())
    for _ in range(20):
        if await until(lambda: stage.working(other) or other.over, 2.0):
            break
        # It was frozen with a lock that the other one needs.
        life.send(SIGCONT)
        await asyncio.sleep(0.01)
        life.send(SIGSTOP)
    # Everything that the frozen one had asked is answered by now; the other one's questions are not.
    life.send(SIGCONT)
    stage.also_alive = frozen.coordinator
    await asyncio.sleep(1.0)
    await stage.look()
    await life.kill(followed=True)
    stage.report.deaths["kill"] += 1
    await stage.check(life)
    return other


TROUBLES_BY_NAME: dict[str, Trouble] = {
    each.__name__: each for each in (stop, misbehave, cut, disk, lock, second, clock, told, people, late)
}
