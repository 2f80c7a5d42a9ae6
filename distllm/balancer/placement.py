"""Which papers a free seat may take, so that all workers end together.

Longest first alone is a trap for small jobs: the slowest worker takes the longest paper and is waited for. So a seat
takes the longest paper that it would have answered before the projected end of everything, and none rather than one
that it would be waited for with.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from distllm.balancer.paces import Pace
from distllm.domain.models import Paper

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Place:
    """One seat: its pace, in how many seconds it will be free, and whether it wants a new paper then.

    `window` is what it can hold, in tokens.
    """

    worker_id: int
    pace: Pace
    free_in: float
    wanting: bool
    window: int


def projected_end(places: Sequence[Place], papers: Sequence[Paper]) -> float:
    """In how many seconds everything can be answered, if nobody is idle before and no paper is cut in two.

    `papers` have the longest first; somebody can hold it.
    """
    if not papers:
        return 0.0
    longest = papers[0]
    one_alone = min(place.free_in + place.pace.seconds(longest) for place in places if place.window >= longest.needs)
    # Work is measured in seconds of the first place; the others' are as much shorter as they are faster with it.
    whole = Paper(sum(paper.tokens for paper in papers), sum(paper.prompts for paper in papers), 0)
    reference = places[0].pace.seconds(whole)
    by_time = sorted(places, key=lambda place: place.free_in)
    speeds = [reference / place.pace.seconds(whole) for place in by_time]
    head_starts = accumulate(place.free_in * speed for place, speed in zip(by_time, speeds, strict=True))
    together = 0.0
    for place, speed, ahead, following in zip(
        by_time, accumulate(speeds), head_starts, [*by_time[1:], None], strict=True
    ):
        together = max((reference + ahead) / speed, place.free_in)
        if following is None or together <= following.free_in:
            break
    return max(one_alone, together)


def longest_in_time(places: Sequence[Place], papers: Sequence[Paper]) -> dict[int, int]:
    """For each worker with a seat that wants one, what the longest paper needs that it may take; 0 for none.

    `papers` have the longest first; those that nobody can hold are waited for by nobody.
    """
    soonest: dict[int, Place] = {}
    for place in places:
        if place.wanting and place.free_in <= soonest.get(place.worker_id, place).free_in:
            soonest[place.worker_id] = place
    widest = max((place.window for place in places), default=0)
    papers = [paper for paper in papers if paper.needs <= widest]
    if not papers or not soonest:
        return dict.fromkeys(soonest, 0)
    end = projected_end(places, papers) * (1 + _ROUNDING)
    # Thousands of papers are tried for hundreds of seats: each begins with the first that it could read in time.
    fewest = min(paper.prompts for paper in papers)
    shortest_yet = list(accumulate((-paper.tokens for paper in papers), max))

    def bound(place: Place) -> int:
        room = end - place.free_in
        first = bisect_left(shortest_yet, -(room - place.pace.answering(fewest)) * place.pace.prefill - 1)
        fitting = (papers[at] for at in range(first, len(papers)) if place.pace.seconds(papers[at]) <= room)
        return next((paper.needs for paper in fitting), 0)

    return {worker_id: bound(place) for worker_id, place in soonest.items()}
