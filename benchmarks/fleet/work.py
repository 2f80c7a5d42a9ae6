"""What there is to do, who is to do it, and what goes wrong meanwhile: made up from a seed, alike for every policy."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

QUESTION = 40
PREFILL, DECODE = 100.0, 5.0
RECORDED = Path(__file__).parent / "recorded.json"

TROUBLES = ("die", "hang", "slow", "late")
"""One worker dies and comes back, one hangs, one slows down to a third, one joins late; of eight, and of each further
eight again."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One paper: its tokens, and the lengths of the answers to its prompts, in tokens."""

    number: int
    tokens: int
    answers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a worker from one moment to another, as shares of the least time without troubles."""

    worker: int
    kind: str
    begins: float
    ends: float

    @property
    def speed(self) -> float:
        """The share of its speed that the worker has meanwhile."""
        return 1 / 3 if self.kind == "slow" else 0.0


def papers(rng: Random, count: int, prompts: int) -> list[Task]:
    """Papers of 4,000 to 40,000 tokens, log-normal, and answers of 200 tokens, give or take 60."""
    return [
        Task(
            number,
            round(min(40_000, max(4_000, math.exp(rng.gauss(math.log(12_000), 0.6))))),
            tuple(max(20.0, rng.gauss(200, 60)) for _ in range(prompts)),
        )
        for number in range(count)
    ]


def made_up_rates(rng: Random, workers: int, spread: float) -> list[tuple[float, float]]:
    """Prefill and decode of workers that are 1 to `spread` times as fast as the slowest, log-uniform."""
    speeds = [math.exp(rng.uniform(0, math.log(spread))) for _ in range(workers)]
    return [(PREFILL * speed, DECODE * speed) for speed in speeds]


def recorded_rates(rng: Random, workers: int) -> list[tuple[float, float]]:
    """Prefill and decode of real machines, drawn at random."""
    machines = json.loads(RECORDED.read_text(encoding="utf-8"))["machines"]
    drawn = [rng.choice(machines) for _ in range(workers)]
    return [(each["prefill"], each["decode"]) for each in drawn]


def troubles(rng: Random, workers: int) -> list[Trouble]:
    """Half of the workers have one each, but of two workers only one."""
    unlucky = rng.sample(range(workers), max(1, workers // 2))
    kinds = [TROUBLES[place % len(TROUBLES)] for place in range(len(unlucky))]
    if workers < 2 * len(TROUBLES):
        kinds = rng.sample(TROUBLES, len(unlucky))
    found = []
    for worker, kind in zip(unlucky, kinds, strict=True):
        begins = 0.0 if kind == "late" else rng.uniform(0.05, 0.6)
        found.append(Trouble(worker, kind, begins, begins + rng.uniform(0.1, 0.3)))
    return found
