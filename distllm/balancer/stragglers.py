"""Which prompt in flight an idle worker should be asked too, though one of the two then works for nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SECONDS, LEAST_GAIN = 1.0, 0.05
"""What asking a second worker must gain, in seconds and as a share of the time that it takes."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """A prompt in flight, and an idle seat that might be sent it too: in how many seconds either will have answered.

    `rest` is infinite where nothing is heard of the worker that has it; `elsewhere` counts the reading of the paper,
    and is None where nobody knows how fast the idle one is.
    """

    rest: float
    elsewhere: float | None


def best_hedge(stragglers: Sequence[Straggler]) -> int | None:
    """Which of `stragglers` it gains most to ask a second time; None where none would be answered clearly sooner.

    Whose pace is not known gets only what nobody is expected to answer.
    """
    found: tuple[float, int] | None = None
    for index, each in enumerate(stragglers):
        if each.elsewhere is None and each.rest < math.inf:
            continue
        elsewhere = each.elsewhere or 0.0
        gain = each.rest - elsewhere
        if gain > max(LEAST_SECONDS, LEAST_GAIN * elsewhere) and (found is None or gain > found[0]):
            found = (gain, index)
    return None if found is None else found[1]
