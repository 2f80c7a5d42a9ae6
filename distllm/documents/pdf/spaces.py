"""Spaces where the page shows them.

PDFium finds words by the rules of most programs; those that set each letter at a place of its own (troff,
among others) get words that run together, and spaces within words that stand over the next letter.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_LEAST_SPACE = 0.2
_NO_SPACE = 0.0
_MOST_OPENED = 1 / 3
_OPENING = "\"'([\u2018\u201c"


class Glyph(NamedTuple):
    """A visible character and the room it takes along its line, in points."""

    character: str
    left: float
    right: float


def respace(text: str, glyphs: Sequence[Glyph], size: float) -> str:
    """Correct the spaces of a line by the white between its letters, of `size` points.

    `glyphs` are the visible characters of `text`, in its order. A line that is letter-spaced, or whose font
    tells no widths, stays as it is.
    """
    pieces = _pieces(text)
    whites = [(after.left - before.right) / size for before, after in pairwise(glyphs)]
    opened, closed, spaces = set(), set(), 0
    for place, (white, (before, after)) in enumerate(zip(whites, pairwise(glyphs), strict=True)):
        rest = pieces[place + 1][1:]
        if rest.isspace():
            spaces += 1
            if white < _NO_SPACE and before.character.isalpha() and after.character.islower():
                closed.add(place + 1)
        elif not rest and white > _LEAST_SPACE and (after.character.isalnum() or after.character in _OPENING):
            opened.add(place + 1)
    if len(opened) > _MOST_OPENED * len(whites):
        opened.clear()
    if 2 * len(closed) > spaces:
        closed.clear()
    for place in opened:
        pieces[place] += " "
    for place in closed:
        pieces[place] = pieces[place].rstrip()
    return "".join(pieces)


def _pieces(text: str) -> list[str]:
    """Cut before each visible character; what comes before the first stands alone, if only as an empty text."""
    pieces = [""]
    for character in text:
        if character > " ":
            pieces.append(character)
        else:
            pieces[-1] += character
    return pieces
