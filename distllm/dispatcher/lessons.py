"""What the counts of a model teach in the course of a run, where some of them may be of prompts that were cut."""

from bisect import bisect_left, bisect_right

from distllm.domain.factors import UNLEARNT, Factors
from distllm.domain.tokens import Makeup, most_tokens

STEADY = 32
"""After so many counts of a model only surprising ones are learnt."""

MOST = 2 * STEADY
"""How many a run learns at most: who surprises for ever teaches nothing."""

ENOUGH = 3
"""From so many counts on, bounds can prove something, and one below them is not believed."""

MUCH_SMALLER = 0.5
"""A prompt is judged by the counts of those that were smaller by this factor: what cuts it does not cut them."""


class Lessons:
    """Counts in the order of the sizes of their prompts, on top of what is `known` for certain, or from other runs.

    Whatever a server tells of its window: what it cuts is larger than what it does not. So a larger prompt teaches
    nothing of a smaller one, and nothing that contradicts the smaller ones.
    """

    def __init__(self, known: Factors | None) -> None:
        self._taught: list[tuple[int, Makeup, int]] = []
        self._after = [known or UNLEARNT]

    @property
    def all(self) -> Factors:
        """What all of them have taught."""
        return self._after[-1]

    @property
    def full(self) -> bool:
        """Whether no more is learnt in this run."""
        return len(self._taught) >= MOST

    def about(self, parts: Makeup) -> Factors | None:
        """What much smaller prompts than this have taught; None where that is not enough to prove anything."""
        size = MUCH_SMALLER * most_tokens(parts)
        factors = self._after[bisect_right(self._taught, size, key=lambda each: each[0])]
        return factors if factors.counts >= ENOUGH else None

    def add(self, parts: Makeup, count: int, *, certain: bool) -> None:
        """So many tokens were read of what is made up so; `certain` if the server's own tokenizer says so."""
        if certain:
            self._after[0] = self._after[0].learnt(parts, count)
            place = 0
        else:
            size = most_tokens(parts)
            place = bisect_left(self._taught, size, key=lambda each: each[0])
            self._taught.insert(place, (size, parts, count))
        del self._after[place + 1 :]
        for _, made, read in self._taught[place:]:
            factors = self.all
            believed = factors.counts < ENOUGH or read >= factors.bounds(made).lower
            self._after.append(factors.learnt(made, read) if believed else factors)
