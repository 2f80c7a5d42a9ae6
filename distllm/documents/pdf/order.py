"""In which order to read the lines of a page.

TeX and Word draw a page as it is read. Some layout programs do not; their pages are told by steps that go
back up within a column, and are cut into columns by the white between them.
"""

from collections.abc import Iterable
from itertools import pairwise

from distllm.documents.pdf.lines import Line, overlap

_LEAST_LETTERS = 12
_LEAST_STEP_UP = 20.0
_LEAST_GUTTER = 5.0
_LEAST_COLUMN_HEIGHT = 20.0
_LEAST_COLUMN_LINES = 2
_LEAST_TEXT_LINES = 10
_DEEPEST_CUT = 40


def reading_order(lines: list[Line]) -> list[Line]:
    """Put lines that were not drawn in the order of reading into it; lines aside come last."""
    flow = [line for line in lines if not line.aside]
    rest = [line for line in lines if line.aside]
    steps = count_jumps(flow)
    if steps:
        ordered = _cut(flow)
        if count_jumps(ordered) < steps:
            flow = ordered
    return flow + rest


def count_jumps(lines: list[Line]) -> int:
    """Count the steps that go back up in the same column: 0 where lines stand in the order of reading."""
    body = [line for line in lines if len(line.text) > _LEAST_LETTERS]
    return sum(overlap(above, below) and below.bottom > above.top + _LEAST_STEP_UP for above, below in pairwise(body))


def _cut(lines: list[Line], depth: int = 0) -> list[Line]:
    """Order lines by cutting them at the widest gutter, else at the widest gap, and so on in the parts."""
    if len(lines) < 2 or depth > _DEEPEST_CUT:
        return lines
    parts = _at_gutter(lines) or _at_gap(lines)
    if parts is None:
        # Lines that overlap in height, as the pieces of a formula do.
        return sorted(lines, key=lambda line: (-round(line.top / 3), line.left))
    before, after = parts
    return _cut(before, depth + 1) + _cut(after, depth + 1)


def _at_gutter(lines: list[Line]) -> tuple[list[Line], list[Line]] | None:
    """Cut at the widest white from top to bottom that no line crosses and that has columns on both sides."""
    # A page number beside the columns may have more white around it than they have between them.
    for middle in _whites(((line.left, line.right) for line in lines), _LEAST_GUTTER):
        sides = [line for line in lines if line.right <= middle], [line for line in lines if line.left >= middle]
        if all(_is_column(side) for side in sides):
            return sides
    return None


def _at_gap(lines: list[Line]) -> tuple[list[Line], list[Line]] | None:
    """Cut at the white from left to right that frees most lines of what crosses their gutter, else at the widest.

    A heading over both columns goes before figures that stand side by side, which leave more white.
    """
    cuts = [
        ([line for line in lines if line.bottom >= middle], [line for line in lines if line.bottom < middle])
        for middle in _whites(((line.bottom, line.top) for line in lines), 0.0)
    ]
    return max(cuts, key=lambda parts: max(map(_freed, parts)), default=None)


def _freed(lines: list[Line]) -> int:
    """Count the lines that a gutter parts into columns of text, which a table's are too short to be."""
    sides = _at_gutter(lines)
    return len(lines) if sides and min(map(len, sides)) >= _LEAST_TEXT_LINES else 0


def _whites(spans: Iterable[tuple[float, float]], least: float) -> list[float]:
    """Find the middles of the stretches between the spans, wider than `least`, that none covers; widest first."""
    found: list[tuple[float, float]] = []
    covered: float | None = None
    for start, end in sorted(spans):
        if covered is not None and start - covered > least:
            found.append((start - covered, (start + covered) / 2))
        covered = end if covered is None else max(covered, end)
    return [middle for _, middle in sorted(found, key=lambda white: -white[0])]


def _is_column(lines: list[Line]) -> bool:
    if len(lines) < _LEAST_COLUMN_LINES:
        return False
    return max(line.top for line in lines) - min(line.bottom for line in lines) > _LEAST_COLUMN_HEIGHT
