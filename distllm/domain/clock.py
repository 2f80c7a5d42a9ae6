"""Time, passed in so that tests can move it."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` is seconds since 1970, for what is stored; `ticks` never steps back, for what is awaited."""

    now: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic
