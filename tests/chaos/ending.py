"""The end of a database: everything is resumed to its end, and looked at as a whole."""

import time

from tests.chaos.broken import BrokenPromiseError, few
from tests.chaos.checks import Snapshot
from tests.chaos.stage import START_SECONDS, Stage

END_SECONDS = 900.0
QUICK_SECONDS = 0.02
"""How long answers take then, so that the end is not waited for."""

CONDEMNED = "went down with it"
"""In the reason for which distllm fails what nobody survives."""


def condemned(snapshot: Snapshot) -> list[str]:
    """The prompts that were failed as poison."""
    return [key for key, error in snapshot.failed.items() if CONDEMNED in error]


async def end(stage: Stage) -> None:
    """Let everything come to its end; raises BrokenPromiseError if it does not, or something is missing then."""
    await stage.fleet.tell("calm")
    await stage.fleet.tell("pace", min(QUICK_SECONDS, stage.mean_seconds))
    by = time.monotonic() + END_SECONDS
    while stage.last.open_jobs:
        life = await stage.start("resume", *stage.open_jobs())
        if not await life.wait(max(0.0, by - time.monotonic())):
            raise BrokenPromiseError("everything is done in the end", f"still busy: {life.said()[-2000:]}")
        stage.ended_by_itself(life)
        await stage.check(life)
    await stage.fleet.tell("pace", stage.mean_seconds)
    _judge(stage)
    life = await stage.start("db", "check")
    await life.wait(START_SECONDS)
    if life.process.returncode != 0:
        raise BrokenPromiseError("the file is sound", life.said())


def _judge(stage: Stage) -> None:
    last, poison = stage.last, stage.options.poison if stage.births.poison is not None else 0
    stuck = last.counts["pending"] + last.counts["leased"]
    if stuck:
        raise BrokenPromiseError("nothing is stuck", f"{stuck} prompts")
    found = condemned(last)
    innocent = [f"{key}: {error}" for key, error in last.failed.items() if key not in found]
    if innocent or len(found) > poison:
        raise BrokenPromiseError(
            "no innocent prompt fails", few(innocent) or f"{len(found)}, and {poison} were planted"
        )
    if len(found) < poison:
        raise BrokenPromiseError("what nobody survives is failed", f"{len(found)} of {poison} were")
    again, air = stage.calls.counts["again after a death"], stage.calls.in_the_air
    # Where two were awake at once, the one that woke up also gave up what it had just asked.
    if again > air and not stage.report.troubles["late"]:
        shown = f"{again} calls were made again, and the deaths had only {air} in the air"
        raise BrokenPromiseError("a death costs what it had in the air, and no more", shown)
