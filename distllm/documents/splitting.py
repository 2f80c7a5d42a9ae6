"""A text that is too long for a window, cut along its structure.

Cuts are made where sections begin rather than paragraphs, and there rather than at sentences, as far as the parts
stay nearly as few and as even as they can be. A part that does not begin with a section begins with the last
sentences of the part before it, so that what stands across the cut is read whole once.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from distllm.documents.pieces import Count, Level, Piece, pieces_of


@dataclass(frozen=True, slots=True)
class Span:
    """The characters [first, last) of a text."""

    first: int
    last: int


_MARGIN = 0.01
"""Kept free, since a part may count a little more than its pieces."""

_FULLEST = 0.95
"""Of many parts, one more is made rather than cutting all of them where their room ends."""

_UNEVEN = 0.3
_GAIN = {
    Level.CHARACTER: -1.0,
    Level.WORD: -0.5,
    Level.CLAUSE: -0.35,
    Level.LINE: -0.3,
    Level.HEADED: -0.6,
    Level.SENTENCE: 0.0,
    Level.PARAGRAPH: 0.18,
    Level.SUBSECTION: 0.33,
    Level.SECTION: 0.4,
}
"""How far from an even part, as a share of it, a cut is sought for what begins there."""

_OVERLAP = 0.03
_OVERLAP_OF_ONE_SENTENCE = 0.15
_MOST_SENTENCES = 3
_A_SENTENCE = 40
"""In tokens; few are longer."""

_TRIES = 4
"""How often a text is cut anew for parts that count too much, or for fewer parts."""


def split(text: str, budget: int, count: Count, *, references: bool = True) -> list[Span]:
    """The parts of `text` in order, none of which counts more than `budget`.

    Together they hold all that is not white space, but for lists of references where these are left out; a text that
    has nothing else keeps them. `count` is about additive: it is called for the pieces of the text and for the
    parts, in time linear in its length.
    Raises ValueError if a single character counts more than the budget.
    """
    room = max(1, budget - int(budget * _MARGIN))
    spans: list[Span] = []
    for pieces in pieces_of(text, room, count, references=references):
        whole = Span(pieces[0].first, pieces[-1].last)
        spans.extend([whole] if _fits(text, whole, budget, count) else _parts(text, pieces, budget, room, count))
    return spans if spans or references else split(text, budget, count)


def _fits(text: str, span: Span, budget: int, count: Count) -> bool:
    return count(text[span.first : span.last]) <= budget


def _parts(text: str, pieces: Sequence[Piece], budget: int, room: int, count: Count) -> list[Span]:
    """The parts of a run of pieces, cut anew with less room while one of them counts too much."""
    for _ in range(_TRIES):
        spans = [_span(pieces[first:last]) for first, last in _Cutter(pieces, room).cut_in_fewest()]
        most = max(count(text[span.first : span.last]) for span in spans)
        if most <= budget:
            return spans
        room = max(1, min(room - 1, room * budget // most))
    return _halved(text, pieces, budget, count)


def _halved(text: str, pieces: Sequence[Piece], budget: int, count: Count) -> list[Span]:
    """The parts of a text that counts quite other than its pieces do."""
    span = _span(pieces)
    if count(text[span.first : span.last]) <= budget:
        return [span]
    if len(pieces) == 1:
        raise ValueError(f"a part of {budget} tokens does not hold {text[span.first : span.last][:20]!r}")
    middle = len(pieces) // 2
    return [*_halved(text, pieces[:middle], budget, count), *_halved(text, pieces[middle:], budget, count)]


def _span(pieces: Sequence[Piece]) -> Span:
    return Span(pieces[0].first, pieces[-1].last)


class _Cutter:
    """Cuts a run of pieces into parts of at most `room` tokens, which are told as (first, end) of their pieces."""

    def __init__(self, pieces: Sequence[Piece], room: int) -> None:
        self._levels = [piece.level for piece in pieces]
        self._tokens = [piece.tokens for piece in pieces]
        self._end = len(pieces)
        # What stands before each piece, and last before the end of all.
        self._before = list(accumulate((piece.tokens + piece.gap for piece in pieces), initial=0.0))
        self._room = room

    def cut_in_fewest(self) -> list[tuple[int, int]]:
        """The fewest parts that are nearly even, or what comes near them."""
        total = self._before[-1]
        fewest = max(1, math.ceil(total / self._room), int(total / (self._room * _FULLEST)))
        cuts: list[list[tuple[int, int]]] = []
        for number, overlap in product(range(fewest, fewest + _TRIES), (_OVERLAP, _OVERLAP_OF_ONE_SENTENCE)):
            cuts.append(self._cut_in(number, overlap))
            if len(cuts[-1]) <= number:
                break
        return min(reversed(cuts), key=len)

    def _cut_in(self, number: int, overlap: float) -> list[tuple[int, int]]:
        """About so many parts, more where these are not enough, if each has so large a share of the one before it."""
        parts: list[tuple[int, int]] = []
        at = earliest = 0
        while at < self._end:
            first = self._overlapped(at, earliest)
            left = self._before[-1] - self._before[at]
            parts_left = max(number - len(parts), math.ceil(left / self._room))
            if parts_left <= 1 and self._size(first, self._end) <= self._room:
                cut = self._end
            else:
                cut = self._best_cut(first, at, max(2, parts_left), overlap)
            parts.append((first, cut))
            at, earliest = cut, at + 1
        return parts

    def _size(self, first: int, end: int) -> float:
        return self._before[end - 1] - self._before[first] + self._tokens[end - 1]

    def _overlapped(self, at: int, earliest: int) -> int:
        """Where the part begins whose own first piece is `at`: with some sentences before it, but not at a heading."""
        if at == 0 or self._levels[at] >= Level.SUBSECTION:
            return at
        # Only in the middle of a sentence may it begin in the middle of one, so far back that a shorter one is whole.
        amid = self._levels[at] < Level.HEADED
        lowest, usual = (Level.CHARACTER, _A_SENTENCE) if amid else (Level.HEADED, 0)
        longest = _OVERLAP_OF_ONE_SENTENCE * self._room
        first = at
        for before in range(at - 1, max(earliest, at - _MOST_SENTENCES) - 1, -1):
            most = longest if first == at else max(_OVERLAP * self._room, min(usual, longest))
            too_much = self._before[at] - self._before[before] > most
            if too_much or self._levels[before] < lowest or self._size(before, at + 1) > self._room:
                break
            first = before
        return first

    def _best_cut(self, first: int, at: int, parts: int, overlap: float) -> int:
        """Where to end the part that begins with `first`, if what begins `at` is to be so many parts."""
        here, left = self._before[at], self._before[-1] - self._before[at]
        last = bisect_right(self._before, self._before[first] + self._room) - 1
        while last + 1 < self._end and self._size(first, last + 1) <= self._room:
            last += 1
        last = max(at + 1, min(last, self._end - 1))
        if last == self._end:
            return last
        wanted = here + left / parts
        # What is left after it must fit the other parts, each with its overlap; at a heading there is none.
        room, again = self._room, overlap * self._room
        least = here + left - (parts - 1) * (room - again)
        earliest = here + (wanted - here) * (1 - _UNEVEN)
        cut = self._best(here, wanted, range(self._next(max(least - again, earliest), at, last), last + 1), least)
        if self._levels[cut] < Level.SENTENCE and parts > 2:
            # Rather one part more than a heading, or half a sentence, at the end of one.
            earlier = self._best(here, wanted, range(self._next(earliest, at, last), last + 1), earliest)
            return earlier if self._levels[earlier] >= Level.SENTENCE else cut
        return cut

    def _next(self, least: float, at: int, last: int) -> int:
        """The first cut after the piece `at` that has at least so much before it."""
        return min(bisect_left(self._before, least, at + 1), last)

    def _best(self, here: float, wanted: float, cuts: range, least: float) -> int:
        """The best of cuts, the last if in doubt; those with less than `least` before them must be at a heading."""
        fit = [c for c in cuts if self._before[c] >= least or self._levels[c] >= Level.SUBSECTION] or [cuts[-1]]
        size = max(1.0, wanted - here)
        return max(fit, key=lambda cut: _GAIN[self._levels[cut]] - abs(self._before[cut] - wanted) / size)
