"""The sequence of faults, decided by the seed before anything is started."""

import sys
from dataclasses import dataclass
from random import Random

from tests.chaos.edges import BUILD, OTHERS, RECLAIM, REQUIRED, TOLD, Edge
from tests.chaos.options import RARE, TROUBLES, Options

KILL, EDGE, IO = "kill", "edge", "io"
LONGEST_GAP = 4.0
"""No gap is longer than so many mean ones."""

ONCE = (RECLAIM, BUILD, "job", "document")
"""The sorts of which a process has one transaction, or few."""


@dataclass(frozen=True, slots=True)
class Round:
    """One life of a coordinator: what troubles it, and how it dies, `gap` seconds after it began to lease.

    `seed` decides whatever else is left to chance.
    """

    death: str
    gap: float
    edge: Edge | None = None
    trouble: str | None = None
    seed: int = 0


def make_plan(options: Options) -> list[Round]:
    """All rounds of a campaign, in order."""
    rng = Random(f"plan {options.seed}")
    mean = options.apart * options.answer_seconds

    def gap() -> float:
        return min(rng.expovariate(1.0), LONGEST_GAP) * mean

    rounds = [Round(KILL, gap(), seed=rng.getrandbits(32)) for _ in range(options.kills)]
    rounds += [Round(EDGE, 0.0, edge, seed=rng.getrandbits(32)) for edge in _edges(options.edges, rng)]
    troubles = [fault for fault in (*TROUBLES, *RARE) if fault in options.faults]
    rounds += [
        Round(KILL, gap(), _lie(trouble, rng), trouble, rng.getrandbits(32))
        for trouble in troubles
        for _ in range(options.others)
    ]
    if "io" in options.faults and sys.platform == "linux":
        rounds += [Round(IO, 0.0, seed=rng.getrandbits(32)) for _ in range(options.others)]
    rng.shuffle(rounds)
    return rounds


def _edges(number: int, rng: Random) -> list[Edge]:
    """As often each of those that must be hit, and now and then another one."""
    wanted: list[tuple[str, str]] = []
    while len(wanted) < number:
        wanted += [*rng.sample(REQUIRED, len(REQUIRED)), rng.choice(OTHERS)]
    return [Edge(side, sort, _nth(sort, rng)) for side, sort in wanted[:number]]


def _nth(sort: str, rng: Random) -> int:
    return 1 if sort in ONCE else rng.randint(1, 12 if sort != "health" else 5)


def _lie(trouble: str, rng: Random) -> Edge | None:
    """The commit that is told to have failed."""
    return Edge(TOLD, rng.choice(("settle", "claim")), rng.randint(2, 10)) if trouble == "told" else None
