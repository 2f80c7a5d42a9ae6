"""The headings and paragraphs of a text."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from distllm.documents.headings import Heading, Style, are_references, credible, ends_references, heading_of


@dataclass(frozen=True, slots=True)
class Block:
    """The characters [first, last) of a text, up to where the next block begins; a paragraph has no heading."""

    first: int
    last: int
    heading: Heading | None


_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_MARKED_LINE = re.compile(r"^ {0,3}#{1,6}[ \t]+\S.*$", re.MULTILINE)
_UNDERLINED = re.compile(r"(\S.*)\n {0,3}(=+|-{3,})[ \t]*")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)


def blocks_of(text: str) -> list[Block]:
    """The blocks of a text in order, from its first visible character to its last."""
    blocks = list(_blocks(text))
    styles = credible([block.heading for block in blocks if block.heading])
    return [
        replace(block, heading=None) if block.heading and block.heading.style not in styles else block
        for block in blocks
    ]


def without_references(text: str, blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """The blocks of a text in runs, between which a list of references is left out with its heading."""
    start = i = 0
    while i < len(blocks):
        heading, end = blocks[i].heading, i + 1
        if heading and heading.of_references:
            while end < len(blocks) and not _ends(blocks[end], heading):
                end += 1
            if are_references(text[blocks[i].last : blocks[end - 1].last]):
                yield blocks[start:i]
                start = end
        i = end
    yield blocks[start:]


def _ends(block: Block, references: Heading) -> bool:
    return block.heading is not None and ends_references(block.heading, references)


def _blocks(text: str) -> Iterator[Block]:
    fenced = False
    start = len(text) - len(text.lstrip())
    end_of_all = len(text.rstrip())
    ends = [(blank.start(), blank.end()) for blank in _BLANK_LINES.finditer(text, start, end_of_all)]
    for end, following in [*ends, (end_of_all, end_of_all)]:
        fences = len(_FENCE.findall(text, start, end))
        if fenced or fences:
            yield Block(start, following, None)
        elif start < end:
            yield from _headed(text, start, end, following)
        fenced ^= fences % 2 == 1
        start = following


def _headed(text: str, start: int, end: int, following: int) -> Iterator[Block]:
    """One run of lines without a blank one between them: its headings, and what stands there beside them."""
    if underlined := _UNDERLINED.fullmatch(text, start, end):
        depth = 1 if underlined[2][0] == "=" else 2
        yield Block(start, following, Heading(depth, underlined[1].strip(), Style.MARKED))
        return
    line_end = text.find("\n", start, end)
    alone = line_end < 0
    heading = heading_of(text[start : end if alone else line_end], alone=alone)
    if heading and heading.style is not Style.MARKED:
        first, start = start, following if alone else line_end + 1
        yield Block(first, start, heading)
    for line in _MARKED_LINE.finditer(text, start, end):
        if heading := heading_of(line[0], alone=True):
            if start < line.start():
                yield Block(start, line.start(), None)
            start = line.end() + 1 if line.end() < end else following
            yield Block(line.start(), start, heading)
    if start < following:
        yield Block(start, following, None)
