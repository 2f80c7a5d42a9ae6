"""The weight of a worker: how much of the work it should get while nothing better is known."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

AVAILABILITY = 0.4
SUCCESS = 0.4
RESPONSE = 0.2
_LEAST = 0.01
_LIGHTEST = 1e-6


def weigh(*, availability: float, success_rate: float, seconds: float | None, best_seconds: float | None) -> float:
    """0.4 availability + 0.4 success rate + 0.2 response time, each from 0 to 1.

    `availability` is the share of seats that are free. `seconds` is a worker's mean time for an answer and
    `best_seconds` the smallest of the fleet; None until an answer has come, which counts as the best.
    """
    response = 1.0 if not seconds or not best_seconds else min(1.0, best_seconds / seconds)
    return max(_LEAST, AVAILABILITY * availability + SUCCESS * success_rate + RESPONSE * response)


def shuffled(items: Sequence[T], weights: Sequence[float], rng: Random) -> list[T]:
    """All items in random order; the heavier, the likelier to come early."""
    keys = [rng.random() ** (1.0 / max(weight, _LIGHTEST)) for weight in weights]
    order = sorted(range(len(items)), key=keys.__getitem__, reverse=True)
    return [items[index] for index in order]
