"""The rounds of a campaign: each is one life of a coordinator, and its death."""

from random import Random

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.edges import BUILD
from tests.chaos.plan import EDGE, IO, Round
from tests.chaos.stage import START_SECONDS, Stage
from tests.chaos.troubles import TROUBLES_BY_NAME
from tests.chaos.victim import POISONED

EDGE_SECONDS = 20.0
SMALL_JOB_SORTS = (BUILD, "document", "job")


async def play(stage: Stage, each: Round) -> None:
    """One round; raises BrokenPromiseError."""
    rng = Random(each.seed)
    if each.death == EDGE:
        await _die_at_the_edge(stage, each)
    elif each.death == IO:
        await _fail_to_sync(stage, rng)
    else:
        await _be_killed(stage, each, rng)


async def _be_killed(stage: Stage, each: Round, rng: Random) -> None:
    life = await stage.begin(each.edge)
    if each.trouble is not None:
        life = await TROUBLES_BY_NAME[each.trouble](stage, life, rng)
        stage.report.troubles[each.trouble] += 1
    if await life.wait(each.gap):
        stage.ended_by_itself(life)
    else:
        await life.kill()
        stage.report.deaths["kill"] += 1
    await stage.check(life)
    stage.switches.turn(clock=0.0, full=False)
    if stage.disturbed:
        await stage.fleet.tell("calm")
        stage.disturbed = False
    if each.trouble != "late":
        stage.also_alive = 0


async def _die_at_the_edge(stage: Stage, each: Round) -> None:
    assert each.edge is not None
    small = each.edge.sort in SMALL_JOB_SORTS
    command = stage.command(small=small)
    life = await stage.start(*command, edge=each.edge)
    ended = await life.wait(EDGE_SECONDS)
    hit = any(reached.side != POISONED for reached in life.hits())
    stage.report.missed += not hit
    if not ended:
        await life.kill()
        stage.report.deaths["kill"] += 1
    elif hit:
        stage.report.deaths["edge"] += 1
    else:
        stage.ended_by_itself(life)
    await life.leaves_nothing()
    # Half of what was killed while it was submitted is submitted once more, the other half only resumed.
    if small and each.seed % 2:
        stage.repeat(command)
    await stage.check(life)


async def _fail_to_sync(stage: Stage, rng: Random) -> None:
    """The disk does not take what is written: the coordinator stops and says so."""
    life = await stage.start(*stage.command(), nth=rng.randint(3, 30))
    life.held_up = True
    if not await life.wait(START_SECONDS):
        await life.kill()
        raise BrokenPromiseError("a coordinator that cannot write stops", life.said()[-2000:])
    if life.process.returncode == 1 and "could not be written" in life.said():
        stage.report.deaths["input/output error"] += 1
    else:
        stage.ended_by_itself(life)
        stage.report.missed += 1
    await life.leaves_nothing()
    await stage.check(life)
