"""From lines to text: which lines make one paragraph, and what stands aside of it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from statistics import median

from distllm.documents.pdf.clean import Hyphens
from distllm.documents.pdf.lines import HYPHEN, Line

_SENTENCE_END = re.compile(r"[.!?:][\"'\u201d\u2019)\]]*$")
_CAPTION = re.compile(r"(?:Figure|Fig\.|Table|Algorithm|Listing)\s*\d", re.IGNORECASE)
_ITEM = re.compile(r"(?:[\u2022\u2013\u25aa\u25cf\u25e6*\u2212]|\[\w{1,12}\]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")
_NUMBER = re.compile(r"[\d.,%()\u00b1\u2212+-]*\d[\d.,%()\u00b1\u2212+-]*")
_PLAIN_WORD = re.compile(f"[(\"'\u2018\u201c]*[^\\W\\d_]+(?:[-'\u2019][^\\W\\d_]+)*[-{HYPHEN})\"'\u2019\u201d,;:.]*")
_LARGEST_STEP = 1.45
_SAME_SIZE = 0.06
_FULL_LINE = 0.75
_NEIGHBOURS = 6
_LONGEST_NUMBER = 30
_LONGEST_SENTENCE_END = 10


def compose(pages: list[list[Line]], hyphens: Hyphens) -> str:
    """Write the lines of all pages as paragraphs with a blank line between them.

    A paragraph goes on over the end of a column or a page unless a sentence ended there; footnotes and
    captions that stand between its parts come after it, as do running heads.
    """
    flow = _Flow(_pitches(pages), hyphens)
    body = usual_size(line for page in pages for line in page)
    for page in pages:
        text = [line for line in page if not line.aside]
        highest = max((line.top for line in text), default=0.0)
        flow.add_aside(line for line in page if line.aside and line.bottom > highest)
        for run in _runs(text):
            flow.add_run(run, body)
        flow.add_aside(line for line in page if line.aside and line.bottom <= highest)
    return "\n\n".join(flow.finish())


def usual_size(lines: Iterable[Line]) -> float:
    """Tell the type size, in points, in which most characters of `lines` are set; 0 without lines."""
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size] += len(line.text)
    return max(letters, key=lambda size: (letters[size], size), default=0.0)


def _pitches(pages: list[list[Line]]) -> dict[int, float]:
    """Measure how far below each other the lines of each size stand, by the size in whole points."""
    steps: defaultdict[int, list[float]] = defaultdict(list)
    for page in pages:
        for above, below in pairwise(page):
            step = above.baseline - below.baseline
            if _same_size(above, below) and 0.8 * below.size < step < 3 * below.size:
                steps[round(below.size)].append(step)
    return {size: median(found) for size, found in steps.items()}


def _runs(lines: list[Line]) -> list[list[Line]]:
    """Part the lines of a page where they go back up: into the next column."""
    runs: list[list[Line]] = []
    for line in lines:
        if runs and line.baseline < runs[-1][-1].baseline + 2 * max(line.size, runs[-1][-1].size):
            runs[-1].append(line)
        else:
            runs.append([line])
    return runs


class _Flow:
    """The text so far: paragraphs, the one that is still open, and what waits until that one ends."""

    def __init__(self, pitches: dict[int, float], hyphens: Hyphens) -> None:
        self._pitches = pitches
        self._hyphens = hyphens
        self._paragraphs: list[str] = []
        # In pieces: the last line, and what it is joined to. One text that grows would cost its square.
        self._open: list[str] = []
        self._last: Line | None = None
        self._lines_open = 0
        self._waiting: list[str] = []

    def add_run(self, run: list[Line], body: float) -> None:
        """Add the lines of one column, of which smaller type at either end may interrupt a sentence."""
        head, tail = self._caption_above(run, body), _notes_below(run, body)
        self._wait(run[:head])
        self._add_lines(run[head : len(run) - tail], body)
        self._wait(run[len(run) - tail :])

    def add_aside(self, lines: Iterable[Line]) -> None:
        """Add lines that are no part of the text, each a paragraph of its own."""
        for line in lines:
            self._wait([line])

    def finish(self) -> list[str]:
        """Close the open paragraph and give all."""
        self._close()
        return self._paragraphs

    def _add_lines(self, lines: list[Line], body: float) -> None:
        for place, line in enumerate(lines):
            self._add(line, self._within(lines, place) if place else self._over_break(line, body))

    def _add(self, line: Line, glue: str | None) -> None:
        """Add a line to the open paragraph with `glue`, or, with None, begin a paragraph with it."""
        if glue is None or not self._open:
            self._close()
            self._open, self._lines_open = [line.text], 1
        else:
            self._open[-1:] = [*self._hyphens.meet(self._open[-1], line.text, glue), line.text]
            self._lines_open += 1
        self._last = line

    def _close(self) -> None:
        if self._open:
            self._paragraphs.append(self._hyphens.finish("".join(self._open)))
        self._paragraphs += self._waiting
        self._open, self._waiting = [], []

    def _wait(self, lines: list[Line]) -> None:
        if lines:
            apart = _Flow(self._pitches, self._hyphens)
            apart._add_lines(lines, usual_size(lines))
            self._waiting += apart.finish()
        if not self._open:
            self._close()

    def _caption_above(self, run: list[Line], body: float) -> int:
        """Count the lines at the head of a column that stand between two parts of a sentence."""
        if self._last is None or _ends_sentence(self._last.text) or not _is_size(self._last, body):
            return 0
        for place, line in enumerate(run):
            if _is_size(line, body) and not _CAPTION.match(line.text):
                return place
            if line.size > body * (1 + _SAME_SIZE):
                return 0
        return 0

    def _over_break(self, line: Line, body: float) -> str | None:
        """Say how the first line of a column is joined to the text before."""
        last = self._last
        if last is None or _ends_sentence(last.text) or last.size > body * (1 + _SAME_SIZE):
            return None
        goes_on = _same_size(last, line) and not _CAPTION.match(line.text) and not _ITEM.match(line.text)
        return " " if goes_on else None

    def _within(self, run: list[Line], place: int) -> str | None:
        """Say how a line is joined to the one above it in its column."""
        above, line = run[place - 1], run[place]
        step = above.baseline - line.baseline
        if abs(step) < 0.5 * line.size:
            return " "
        pitch = self._pitches.get(round(line.size), 1.2 * line.size)
        if step > _LARGEST_STEP * pitch:
            return None
        if not _same_size(above, line) and (_ends_sentence(above.text) or not line.text[:1].islower()):
            return None
        if _is_short(run, place - 1):
            return None if _ends_sentence(above.text) or _ITEM.match(line.text) else "\n"
        if self._indent_begins(run, place):
            return None
        return "\n" if _is_row(above.text) and _is_row(line.text) else " "

    def _indent_begins(self, run: list[Line], place: int) -> bool:
        """Say whether a line's left edge shows that a paragraph begins with it."""
        above, line = run[place - 1], run[place]
        below = run[place + 1] if place + 1 < len(run) else None
        indent, least = line.left - above.left, 0.6 * line.size
        is_second = self._lines_open == 1
        if abs(indent) <= least:
            return bool(_ITEM.match(line.text)) and _ends_sentence(above.text)
        if _ITEM.match(line.text):
            return True
        if indent > 0:
            if indent > 8 * line.size or (is_second and _ITEM.match(above.text)):
                return False
            if line.text[:1].islower() and _is_prose(above.text) and not _ends_sentence(above.text):
                return False
            if below is None:
                return _ends_sentence(above.text)
            hangs = abs(below.left - line.left) <= least
            return not (hangs and is_second)
        # Further left: the second line after an indented first, or the next entry of a hanging list.
        return not is_second and -indent < 8 * line.size and _ends_sentence(above.text)


def _notes_below(run: list[Line], body: float) -> int:
    """Count the lines at the foot of a column, smaller than its text, that interrupt a sentence."""
    for count, line in enumerate(reversed(run)):
        if line.size >= body * (1 - _SAME_SIZE):
            return count if _is_size(line, body) and not _ends_sentence(line.text) else 0
    return 0


def _is_short(run: list[Line], place: int) -> bool:
    """Say whether a line ends well before the right edge of the lines around it."""
    line = run[place]
    sides = run[max(0, place - _NEIGHBOURS) : place + 1], run[place : place + _NEIGHBOURS + 1]
    # Columns may begin or end near: the narrower side tells.
    edges = [sorted(other.right for other in side)[-2] for side in sides if len(side) > 2]
    edge = min(edges, default=line.right)
    left = min(line.left, min(other.left for side in sides for other in side if other.left < edge))
    return line.right - left < _FULL_LINE * (edge - left)


def _is_row(text: str) -> bool:
    """Say whether a line looks like a row of a table: numbers for the most part."""
    words = text.split()
    return len(words) > 2 and 2 * sum(_is_number(word) for word in words) >= len(words)


def _is_prose(text: str) -> bool:
    """Say whether a line looks like part of a sentence: plain words for the most part."""
    words = text.split()
    return len(words) > 3 and 4 * sum(bool(_PLAIN_WORD.fullmatch(word)) for word in words) >= 3 * len(words)


def _is_number(word: str) -> bool:
    return len(word) <= _LONGEST_NUMBER and bool(_NUMBER.fullmatch(word))


def _ends_sentence(text: str) -> bool:
    return bool(_SENTENCE_END.search(text[-_LONGEST_SENTENCE_END:]))


def _same_size(one: Line, other: Line) -> bool:
    return abs(one.size - other.size) <= _SAME_SIZE * max(one.size, other.size)


def _is_size(line: Line, size: float) -> bool:
    return abs(line.size - size) <= _SAME_SIZE * size
