"""What every extractor gives back."""

from collections.abc import Callable
from typing import NamedTuple


class Extract(NamedTuple):
    """What an extractor found in a file's bytes; `problem` says why there is no text, else None.

    `sha256` is given where the text comes from more than those bytes, and stands for all of them.
    """

    text: str
    title: str | None = None
    pages: int | None = None
    problem: str | None = None
    sha256: str | None = None


Extractor = Callable[[bytes], Extract]


def refuse(problem: str, pages: int | None = None) -> Extract:
    """Make the extract of a file that gives no text."""
    return Extract("", pages=pages, problem=problem)
