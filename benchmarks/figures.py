"""What was measured at several sizes, beside what is wanted of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Goal:
    """What the figures of the smallest and the largest size must be to each other."""

    said: str
    met: Callable[[float, float], bool]


def times(most: float) -> Goal:
    """At the largest size at most so many times what it is at the smallest."""
    return Goal(f"≤ {most:g} x", lambda small, large: large <= most * small)


def megabytes_more(most: int) -> Goal:
    """At the largest size at most so many megabytes more than at the smallest."""
    return Goal(f"≤ + {most} MB", lambda small, large: large - small <= most * MEGABYTE)


def at_most(most: float, said: str) -> Goal:
    """Never more than this."""
    return Goal(f"≤ {said}", lambda small, large: max(small, large) <= most)


def at_least(least: float, said: str) -> Goal:
    """Never less than this."""
    return Goal(f"≥ {said}", lambda small, large: min(small, large) >= least)


def as_ms(seconds: float) -> str:
    """Seconds, for people."""
    return f"{1000 * seconds:.2f} ms"


def as_s(seconds: float) -> str:
    """Seconds, for people."""
    return f"{seconds:.2f} s"


def as_mb(size: float) -> str:
    """Bytes, for people."""
    return f"{size / MEGABYTE:.1f} MB"


def as_rate(number: float) -> str:
    """Things a second, for people."""
    return f"{number:,.0f}/s"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: a value for each size, from the smallest to the largest."""

    what: str
    values: Sequence[float]
    show: Callable[[float], str]
    goal: Goal | None = None

    @property
    def missed(self) -> bool:
        """Whether it has a goal and does not reach it."""
        return self.goal is not None and not self.goal.met(self.values[0], self.values[-1])

    def cells(self) -> list[str]:
        """What it is, its values, the ratio of the last to the first, and the goal."""
        ratio = f"{self.values[-1] / self.values[0]:.2f}" if self.values[0] else ""
        goal = "" if self.goal is None else f"{self.goal.said} {'MISSED' if self.missed else 'met'}"
        return [self.what, *map(self.show, self.values), ratio, goal]


def table(sizes: Sequence[int], figures: Sequence[Figure], what: str = "prompts") -> str:
    """Figures as lines, at so many of `what`."""
    rows = [[what, *(f"{size:,}" for size in sizes), "ratio", "goal"], *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]
