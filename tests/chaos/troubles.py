"""What happens to a coordinator, or to what it stands on, before it is killed."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from random import Random
from signal import SIGCONT, SIGSTOP
from typing import TYPE_CHECKING

from distllm.store.locks import coordinator_lock
from tests.chaos.broken import BrokenPromiseError
from tests.chaos.life import Life, until

if TYPE_CHECKING:
    from tests.chaos.campaign import Campaign

DAY_SECONDS = 86_400.0
COMMAND_SECONDS = 60.0

Trouble = Callable[["Campaign", Life, Random], Awaitable[Life]]
"""Does it, and returns who is the coordinator afterwards."""


async def stop(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """Freeze it for a while."""
    life.held_up = True
    life.send(SIGSTOP)
    await asyncio.sleep(rng.uniform(0.1, 8.0) * campaign.mean_seconds)
    life.send(SIGCONT)
    return life


async def misbehave(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """Servers fail, in this round alone."""
    await campaign.fleet.tell("misbehave", rng.choice((0.05, 0.2, 0.5)))
    await asyncio.sleep(rng.uniform(2.0, 10.0) * campaign.mean_seconds)
    campaign.disturbed = True
    return life


async def cut(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """Every connection to one server is reset, and it is away for a moment; perhaps another one too."""
    for _ in range(rng.randint(1, 3)):
        away = rng.uniform(0.0, 2.0) * campaign.mean_seconds
        await campaign.fleet.tell("cut", rng.randrange(5), away)
        await asyncio.sleep(rng.uniform(0.0, 2.0) * campaign.mean_seconds)
    return life


async def disk(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """No room for a while."""
    life.held_up = True
    campaign.disk.fill()
    try:
        await asyncio.sleep(rng.uniform(1.0, 10.0) * campaign.mean_seconds)
    finally:
        campaign.disk.free()
    return life


async def lock(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """Another program holds the write lock for 1 to 10 s, less where answers are quick."""
    life.held_up = True
    seconds = rng.uniform(1.0, 10.0) * min(1.0, campaign.mean_seconds / 0.4)

    def hold() -> None:
        with closing(sqlite3.connect(life.database, timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    await asyncio.to_thread(hold)
    return life


async def second(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """Another one is started, follows, and takes over when the first is killed."""
    other = await campaign.start("resume", *campaign.open_jobs())
    if await until(lambda: campaign.working(other) or "following it" in other.said() or other.over, 20):
        await asyncio.sleep(rng.uniform(0.5, 2.0) * campaign.mean_seconds)
        await campaign.look()
    if other.over:
        return life
    await life.kill(followed=True)
    campaign.report.deaths["kill"] += 1
    await campaign.check(life)
    await campaign.leases(other)
    return other


async def clock(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """The time of day is wrong, by up to a day either way, until the round ends or sooner."""
    campaign.switches.turn(clock=rng.choice((-1, 1)) * rng.uniform(0.1, 1.0) * DAY_SECONDS)
    await asyncio.sleep(rng.uniform(1.0, 6.0) * campaign.mean_seconds)
    if rng.random() < 0.5:
        campaign.switches.turn(clock=0.0)
    return life


async def told(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """A COMMIT that happened was told to have failed: the launcher does it, and what follows waits for a second."""
    life.held_up = True
    await until(lambda: life.hits() or life.over, 10)
    await asyncio.sleep(rng.uniform(1.0, 2.0))
    return life


async def people(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """Commands from elsewhere, in any order."""
    jobs = campaign.open_jobs() or ["1"]
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
            await _cancel(campaign)
            continue
        look_only = name in ("status", "status of one", "check", "query")
        await _run(campaign, commands[name], codes=(0,) if look_only else (0, 1))
        if name == "pause":
            await campaign.look()
            # Named, it goes on; and whoever names it follows the coordinator, until it is killed.
            follower = await campaign.start("resume", job)
            await until(lambda: "following it" in follower.said() or follower.over, 20)  # noqa: B023 - awaited here
            await follower.kill(followed=True)
            campaign.report.deaths["kill of a follower"] += 1
    return life


async def _cancel(campaign: "Campaign") -> None:
    """A small job is stored, and cancelled at once."""
    life = await _run(campaign, [*campaign.papers.ask(campaign.few, 1), "--detach", "--json"])
    job = str(json.loads(life.said().splitlines()[-1])["job_id"])
    await _run(campaign, ["cancel", job], codes=(0, 1))


async def _run(campaign: "Campaign", arguments: list[str], codes: tuple[int, ...] = (0,)) -> Life:
    life = await campaign.start(*arguments)
    if not await life.wait(COMMAND_SECONDS) or life.process.returncode not in codes:
        raise BrokenPromiseError(
            "a command does what it says", f"code {life.process.returncode}: {life.said()[-2000:]}"
        )
    return life


async def late(campaign: "Campaign", life: Life, rng: Random) -> Life:
    """It is frozen, its lock is taken from it, another one takes its leases and asks again; then it wakes up.

    As on a file system whose locks do not hold. What was answered meanwhile comes late, under leases that are
    no longer the newest.
    """
    life.held_up = True
    await asyncio.sleep(rng.uniform(1.0, 4.0) * campaign.mean_seconds)
    life.send(SIGSTOP)
    await asyncio.sleep(0.1)
    campaign.calls.refresh()
    frozen = await campaign.look()
    campaign.calls.bury(life.name, time.monotonic(), frozen, excused=True)
    lock_file = coordinator_lock(life.database)
    if lock_file.holder() == life.process.pid:
        campaign.lock_file.unlink()
    other = await campaign.start("resume", *campaign.open_jobs())
    for _ in range(20):
        if await until(lambda: campaign.working(other) or other.over, 2.0):
            break
        # It was frozen with a lock that the other one needs.
        life.send(SIGCONT)
        await asyncio.sleep(0.01)
        life.send(SIGSTOP)
    # Everything that the frozen one had asked is answered by now; the other one's questions are not.
    life.send(SIGCONT)
    campaign.also_alive = frozen.coordinator
    await asyncio.sleep(1.0)
    await campaign.look()
    await life.kill(followed=True)
    campaign.report.deaths["kill"] += 1
    await campaign.check(life)
    return other


TROUBLES_BY_NAME: dict[str, Trouble] = {
    each.__name__: each for each in (stop, misbehave, cut, disk, lock, second, clock, told, people, late)
}
