"""Running heads, running feet and page numbers: lines that return at the edges of many pages."""

import re
from collections import Counter
from dataclasses import replace

from distllm.documents.pdf.lines import Line

_DIGITS = re.compile(r"\d+")
_NUMBER_ALONE = re.compile(r"[\W_]*#[\W_]*")
_EDGE_LINES = 2
_FEWEST_PAGES = 3
_LEAST_SHARE = 0.3
_SAME_HEIGHT = 3.0

_Head = tuple[str, int]


def set_heads_aside(pages: list[list[Line]]) -> list[list[Line]]:
    """Keep each running head where it comes first, aside of the text, and drop its returns.

    A head is a line that stands, but for its digits, among the two highest or lowest of at least three pages
    and 30 % of them, at one height. Page numbers are dropped on all pages.
    """
    edges = [_edge_lines(page) for page in pages]
    uses = Counter(head for page in edges for head in {_head(line) for line in page})
    running = {head for head, count in uses.items() if count >= max(_FEWEST_PAGES, _LEAST_SHARE * len(pages))}
    seen: set[_Head] = set()
    kept: list[list[Line]] = []
    for page, edge in zip(pages, edges, strict=True):
        heads = {id(line): _head(line) for line in edge if _head(line) in running}
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


def _head(line: Line) -> _Head:
    return _DIGITS.sub("#", line.text).strip(), round(line.bottom / _SAME_HEIGHT)
