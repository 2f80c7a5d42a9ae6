"""Workers shared out among those who want them, each of whom may know of others."""

from collections.abc import Callable, Mapping, Set
from typing import Any


def share_out(
    wanted: Mapping[int, Set[int]],
    owners: Mapping[int, int | None],
    me: int,
    first: Callable[[int], Any],
) -> list[int]:
    """The workers that are to be those of coordinator `me`, whichever of them are its own now.

    `wanted` are the workers that each coordinator wants, of which `owners` tells the coordinator that has them, None if
    they are free; nobody is given what another one keeps who is not among these. A free one goes to who has least, and
    whoever has two more than another gives it one that it wants: of what is ours, the one that `first` sorts first.
    Others may choose differently what they give, but nobody takes what is not free.
    """
    held: dict[int, list[int]] = {each: [] for each in wanted}
    for worker in sorted(owners):
        owner = owners[worker]
        if owner is None:
            hopeful = [each for each in wanted if worker in wanted[each]]
            owner = min(hopeful, key=lambda each: (len(held[each]), each), default=None)
        if owner in held:
            held[owner].append(worker)
    held[me].sort(key=first)
    while (move := _next_move(wanted, held)) is not None:
        rich, poor, worker = move
        held[rich].remove(worker)
        held[poor].append(worker)
    return held[me]


def _next_move(wanted: Mapping[int, Set[int]], held: Mapping[int, list[int]]) -> tuple[int, int, int] | None:
    """Who gives a worker to whom: the richest of those who can, to the poorest."""
    by_wealth = sorted(held, key=lambda each: (len(held[each]), each))
    for poor in by_wealth:
        for rich in reversed(by_wealth):
            if len(held[rich]) < len(held[poor]) + 2:
                break
            for worker in held[rich]:
                if worker in wanted[poor]:
                    return rich, poor, worker
    return None
