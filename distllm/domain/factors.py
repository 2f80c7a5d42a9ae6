"""What the counts of a model teach of its tokenizer: two bounds of the tokens of a text, which counts tighten.

Tokens are taken as a sum over what a text is made of (see `domain.tokens.Makeup`), each part with a weight of the
model's. What is believed of the weights is a mean and a spread, before any count wide enough for the tokenizers in use;
each count moves it by Bayes' rule (a linear regression, one document after another). So the bounds of a text that is
made of other things than what was counted stay wide by themselves.

Measured by `python -m benchmarks.tokens`. What it cannot see: words of a language that share nothing with those
counted but their alphabet are taken for strange only where the commonest English words are missing.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import Self

from distllm.domain.tokens import TEXTS_IN_USE, Makeup, weigh

SURE = 2.5
"""Of how many standard deviations the bounds are."""

CERTAIN = 3.5
"""Of how many the floor is, below which something is missing whatever kind of text it is."""

_DOCUMENT = 0.03
"""How far documents of the same makeup differ in their tokens, as a share of them."""

_ABOUT = 12.0
"""The same in tokens, which matters where they are few."""

_QUESTION, _IN_QUESTION = 0.1, 2.0
"""The same of two questions."""

_MEANS = Makeup(
    words=0.86,
    strange=0.1,
    long=0.27,
    capitals=0.35,
    digits=1.25,
    lines=1.8,
    signs=0.9,
    more=0.25,
    near=1.2,
    far=1.2,
    messages=8,
)
_SPREADS = Makeup(
    words=0.05,
    strange=0.3,
    long=0.05,
    capitals=0.1,
    digits=0.25,
    lines=0.35,
    signs=0.2,
    more=0.2,
    near=0.3,
    far=0.8,
    messages=4,
)
_WITHIN = Makeup(
    words=0.01,
    strange=0.12,
    long=0.02,
    capitals=0.1,
    digits=0.05,
    lines=0.12,
    signs=0.04,
    more=0.15,
    near=0.2,
    far=0.45,
)
"""How far the tokens of one part differ between documents, however many were counted: a script is not another."""

_PARTS = len(Makeup._fields)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Tokens of what is sent: from `lower` to `upper`; fewer than `floor` are not all of it, for certain."""

    lower: int
    upper: int
    floor: int


def around(count: int, apart: float, margin: float) -> Bounds:
    """Bounds around what was counted and what it is `apart`, which may be off by a `margin`."""
    lower = max(0, round(count + apart - margin))
    return Bounds(lower, max(lower, round(count + apart + margin)), lower)


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What is believed of a model's tokenizer after so many `counts`: the mean of each weight, and their covariance."""

    weights: Makeup
    spread: tuple[tuple[float, ...], ...]
    counts: int = 0

    def bounds(self, parts: Makeup, fewest: int = 0) -> Bounds:
        """Bounds of the tokens of what is made up so, which are at least `fewest`."""
        expected, deviation = _expected(self, parts)
        lower, floor = (max(fewest, round(expected - many * deviation)) for many in (SURE, CERTAIN))
        return Bounds(lower, max(lower, round(expected + SURE * deviation)), floor)

    def apart(self, then: Makeup, now: Makeup) -> tuple[float, float]:
        """By how many tokens more is asked now than was asked then about the same text, and how far that may be off."""
        if now == then:
            return 0.0, SURE * _IN_QUESTION
        other = Makeup(*(a - b for a, b in zip(now, then, strict=True)))
        variance = weigh(other, self._moved(other)) + _IN_QUESTION**2
        variance += sum((_QUESTION * weigh(asked, self.weights)) ** 2 for asked in (then, now))
        return weigh(other, self.weights), SURE * math.sqrt(max(0.0, variance))

    def learnt(self, parts: Makeup, count: int) -> Self:
        """What is believed after `count` tokens were read of what is made up so.

        A count far from all that was believed widens it first: the name may be another model's now.
        """
        moved, spread = self._moved(parts), self.spread
        variance, off = self._variance(parts, moved), count - weigh(parts, self.weights)
        surprise = off**2 / (CERTAIN**2 * variance)
        if surprise > 1:
            spread = tuple(tuple(surprise * each for each in row) for row in spread)
            moved = Makeup(*(surprise * each for each in moved))
            variance *= surprise
        weights = Makeup(*(weight + off * move / variance for weight, move in zip(self.weights, moved, strict=True)))
        spread = tuple(
            tuple(each - move * other / variance for each, other in zip(row, moved, strict=True))
            for row, move in zip(spread, moved, strict=True)
        )
        return type(self)(weights, spread, self.counts + 1)

    def _moved(self, parts: Makeup) -> Makeup:
        """The covariance of each weight with the expected tokens."""
        return Makeup(*(sum(map(mul, row, parts)) for row in self.spread))

    def _variance(self, parts: Makeup, moved: Makeup) -> float:
        """Of the tokens: what is not known of the weights, and what no weights tell."""
        unknown: float = sum(map(mul, parts, moved))
        within: float = sum((each * part) ** 2 for each, part in zip(_WITHIN, parts, strict=True))
        return max(0.0, unknown) + within + (_DOCUMENT * weigh(parts, _MEANS)) ** 2 + _ABOUT**2

    def to_json(self) -> str:
        """As it is stored."""
        stored = [self.weights, *(row[: place + 1] for place, row in enumerate(self.spread))]
        return json.dumps([[float(f"{each:.6g}") for each in row] for row in stored], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, counts: int) -> Self | None:
        """Read what `to_json` wrote; None if other parts were weighed then."""
        weights, *rows = json.loads(text) or [[]]
        if [len(row) for row in (weights, *rows)] != [_PARTS, *range(1, _PARTS + 1)]:
            return None
        whole = (tuple(rows[max(i, j)][min(i, j)] for j in range(_PARTS)) for i in range(_PARTS))
        return cls(Makeup(*weights), tuple(whole), counts)


@lru_cache(maxsize=TEXTS_IN_USE)
def _expected(factors: Factors, parts: Makeup) -> tuple[float, float]:
    """The tokens of what is made up so, and their standard deviation: the same request is looked at several times."""
    return weigh(parts, factors.weights), math.sqrt(factors._variance(parts, factors._moved(parts)))


UNLEARNT = Factors(
    _MEANS,
    tuple(tuple(each**2 if i == j else 0.0 for j in range(_PARTS)) for i, each in enumerate(_SPREADS)),
)
"""What is believed of any tokenizer."""
