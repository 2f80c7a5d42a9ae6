"""Which papers a free seat may take, so that all workers end together.

Longest first alone is a trap for small jobs: the slowest worker takes the longest paper and is waited for. So a seat
takes the longest paper that it would have answered before the projected end of everything, and none rather than one
that it would be waited for with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from distllm.domain.models import Paper

_ROUNDING = 1e-9

OVERDUE_SHARE = 0.5
"""What is overdue is taken to need as much again, by this share, as it has had: so nobody is waited for for ever."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a seat of a worker works, in tokens a second, and how long the answers are, in tokens."""

    prefill: float
    decode: float
    question_tokens: float
    answer_tokens: float

    def answering(self, prompts: int) -> float:
        """Seconds for so many prompts about what has been read."""
        return prompts * (self.question_tokens / self.prefill + self.answer_tokens / self.decode)

    def seconds(self, paper: Paper) -> float:
        """Seconds to read a paper and answer its prompts."""
        return paper.tokens / self.prefill + self.answering(paper.prompts)


@dataclass(frozen=True, slots=True)
class Place:
    """One seat: its pace, in how many seconds it will be free, and whether it wants a new paper then."""

    worker_id: int
    pace: Pace
    free_in: float
    wanting: bool


def overdue(expected: float, passed: float) -> float:
    """Seconds that something will still take which was `expected` to take so long and has taken `passed`."""
    return max(expected - passed, OVERDUE_SHARE * (passed - expected))


def projected_end(places: Sequence[Place], papers: Sequence[Paper]) -> float:
    """In how many seconds everything can be answered, if nobody is idle before and no paper is cut in two.

    `papers` have the longest first.
    """
    if not papers:
        return 0.0
    longest = papers[0]
    one_alone = min(place.free_in + place.pace.seconds(longest) for place in places)
    # Work is measured in seconds of the first place; the others' are as much shorter as they are faster with it.
    whole = Paper(sum(paper.tokens for paper in papers), sum(paper.prompts for paper in papers), 0)
    reference = places[0].pace.seconds(whole)
    by_time = sorted(places, key=lambda place: place.free_in)
    speeds = list(accumulate(reference / place.pace.seconds(whole) for place in by_time))
    head_starts = list(accumulate(p.free_in * reference / p.pace.seconds(whole) for p in by_time))
    together = 0.0
    for place, speed, ahead, following in zip(by_time, speeds, head_starts, [*by_time[1:], None], strict=True):
        together = max((reference + ahead) / speed, place.free_in)
        if following is None or together <= following.free_in:
            break
    return max(one_alone, together)


def longest_in_time(places: Sequence[Place], papers: Sequence[Paper]) -> dict[int, int]:
    """For each worker with a seat that wants one, what the longest paper needs that it may take; 0 for none.

    `papers` have the longest first.
    """
    end = projected_end(places, papers) * (1 + _ROUNDING)
    soonest: dict[int, Place] = {}
    for place in places:
        if place.wanting and place.free_in <= soonest.get(place.worker_id, place).free_in:
            soonest[place.worker_id] = place
    return {
        worker_id: next((paper.needs for paper in papers if place.free_in + place.pace.seconds(paper) <= end), 0)
        for worker_id, place in soonest.items()
    }


LEAST_GAIN = 0.05
"""What taking prompts from another must gain, as a share of the time that is left, to be worth a second reading."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A seat with prompts that it has not sent: in how many seconds it will be ready for them, and how many."""

    place: Place
    tokens: int
    unsent: int

    @property
    def end(self) -> float:
        """In how many seconds it will have answered all of them."""
        return self.place.free_in + self.place.pace.answering(self.unsent)


def best_help(helper: Pace, others: Sequence[Busy]) -> tuple[int, int] | None:
    """Which of `others` an idle seat helps most, and how many prompts it takes, though it must read the paper too.

    None where nobody would end sooner.
    """
    found: tuple[float, int, int] | None = None
    for index, busy in enumerate(others):
        for count in range(1, busy.unsent + 1):
            mine = helper.seconds(Paper(busy.tokens, count, 0))
            end = max(mine, busy.place.free_in + busy.place.pace.answering(busy.unsent - count))
            gain = busy.end - end
            if gain > LEAST_GAIN * end and (found is None or gain > found[0]):
                found = (gain, index, count)
    return None if found is None else found[1:]
