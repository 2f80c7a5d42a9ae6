"""Which seat an idle one should help with prompts that it has not sent, though it must read the paper too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distllm.balancer.paces import Pace

LEAST_GAIN = 0.1
"""What help must gain, as a share of the time that is left, to be worth a second reading: who reads could do more
for another soon."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Prompts of one paper that a seat has not sent: how many, and in how many seconds it will begin with them.

    `tokens` is what whoever helps must read first; `has_read` is whether the seat itself need not.
    """

    pace: Pace
    free_in: float
    tokens: int
    unsent: int
    has_read: bool

    def end(self, taken: int = 0) -> float:
        """In how many seconds it will have answered what is left, once so many are taken from it."""
        left = self.unsent - taken
        reading = 0.0 if self.has_read or not left else self.pace.reading(self.tokens)
        return self.free_in + reading + self.pace.answering(left)


def best_help(helper: Pace, others: Sequence[Busy]) -> tuple[int, int] | None:
    """Which of `others` an idle seat helps most, and how many prompts it takes.

    None where nobody would end so much sooner that it is worth reading a paper again.
    """
    found: tuple[float, int, int] | None = None
    least = helper.answering(1)
    for index, busy in enumerate(others):
        soonest = helper.reading(busy.tokens) + least
        if busy.end() - soonest <= (LEAST_GAIN * soonest if found is None else found[0]):
            continue
        for count in _counts(helper, busy):
            end = max(_seconds(helper, busy, count), busy.end(count))
            gain = busy.end() - end
            if gain > LEAST_GAIN * end and (found is None or gain > found[0]):
                found = (gain, index, count)
    return None if found is None else found[1:]


def _counts(helper: Pace, busy: Busy) -> Sequence[int]:
    """How many prompts the helper could take best: those about the point where both end together, or all of them."""
    together = (busy.end() - helper.reading(busy.tokens)) / (helper.answering(1) + busy.pace.answering(1))
    near = min(max(1, math.floor(together)), busy.unsent)
    return sorted({near, min(near + 1, busy.unsent), busy.unsent})


def _seconds(helper: Pace, busy: Busy, count: int) -> float:
    return helper.reading(busy.tokens) + helper.answering(count)
