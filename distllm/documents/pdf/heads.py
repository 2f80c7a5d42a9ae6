"""Running heads, running feet and page numbers: lines that return at the edges of many pages."""

import re
from collections import Counter
from dataclasses import replace

from distllm.documents.pdf.lines import Line

_DIGITS = re.compile(r"\d+")
_NUMBER_ALONE = re.compile(r"[\W_]*#[\W_]*")
_EDGE_LINES = 4
_FEWEST_PAGES = 3
_LEAST_SHARE = 0.3
_SAME_HEIGHT = 3.0
_END_WORDS = 3

_Head = tuple[str, int]


def set_heads_aside(pages: list[list[Line]]) -> list[list[Line]]:
    """Keep each running head where it comes first, aside of the text, and drop its returns.

    A head is a line that stands, but for its digits, among the four highest or lowest of at least three pages
    and 30 % of them, at one height; or that ends as such lines do, since a section's name may come before the
    paper's. Page numbers are dropped on all pages.
    """
    edges = [_edge_lines(page) for page in pages]
    uses = Counter(name for page in edges for name in {name for line in page for name in _names(line)})
    running = {name for name, count in uses.items() if count >= max(_FEWEST_PAGES, _LEAST_SHARE * len(pages))}
    seen: set[_Head] = set()
    kept: list[list[Line]] = []
    for page, edge in zip(pages, edges, strict=True):
        heads = {id(line): _head(line) for line in edge if running.intersection(_names(line))}
        lines = []
        for line in page:
            head = heads.get(id(line))
            if head is None:
                lines.append(line)
            elif head not in seen and not _NUMBER_ALONE.fullmatch(head[0]):
                seen.add(head)
                lines.append(replace(line, aside=True))
        kept.append(lines)
    return kept


def _edge_lines(page: list[Line]) -> list[Line]:
    by_height = sorted((line for line in page if not line.aside), key=lambda line: line.top)
    return by_height[:_EDGE_LINES] + by_height[_EDGE_LINES:][-_EDGE_LINES:]


def _names(line: Line) -> tuple[_Head, ...]:
    """A line as a head, and its end as one if it has words enough to be told from others."""
    text, height = _head(line)
    words = text.split()
    return (text, height), *([(" ".join(words[-_END_WORDS:]), height)] if len(words) > _END_WORDS else [])


def _head(line: Line) -> _Head:
    return _DIGITS.sub("#", line.text).strip(), round(line.bottom / _SAME_HEIGHT)
