"""What a text is made of, in order: the smallest pieces that parts of it are made from, and how good a cut is there."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

from distllm.documents.headings import SECTION_DEPTH, Heading, are_references, ends_references, heading_of
from distllm.documents.sentences import sentence_starts

Count = Callable[[str], int]
"""How many tokens a text has; nearly the sum of what its pieces have."""


class Level(IntEnum):
    """What begins with a piece, and so how good a cut before it is."""

    CHARACTER = 0
    WORD = 1
    LINE = 2
    HEADED = 3
    """What a heading or a colon above it leads to, so that the two belong together."""
    SENTENCE = 4
    PARAGRAPH = 5
    SUBSECTION = 6
    SECTION = 7


@dataclass(frozen=True, slots=True)
class Piece:
    """The characters [first, last) of a text, with what they count, and the white space after them."""

    first: int
    last: int
    level: Level
    tokens: float
    gap: float


_Block = tuple[int, int, Heading | None]

_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_MARKED_LINE = re.compile(r"^ {0,3}#{1,6}[ \t]+\S.*$", re.MULTILINE)
_UNDERLINED = re.compile(r"\S.*\n {0,3}(=+|-{3,})[ \t]*")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_WORD = re.compile(r"\S+")
_SHORT_GAP = 8
_FRAGMENTS_A_PART = 16
"""How many pieces of a sentence that no part holds make one, where it has no lines."""


def pieces_of(text: str, room: int, count: Count, *, references: bool) -> Iterator[list[Piece]]:
    """The pieces of `text`, each of at most `room` tokens, in lists between which something is left out."""
    gap_tokens = lru_cache(maxsize=1000)(count)
    for blocks in _kept(text, list(_blocks(text)), references=references):
        starts = list(_starts(text, blocks))
        found: list[Piece] = []
        for (first, level), last in zip(starts, [*(first for first, _ in starts[1:]), blocks[-1][1]], strict=True):
            end = first + len(text[first:last].rstrip())
            gap = text[end:last]
            after = float(gap_tokens(gap) if len(gap) <= _SHORT_GAP else count(gap))
            whole = Piece(first, end, level, count(text[first:end]), after)
            found.extend([whole] if whole.tokens <= room else _in_fragments(text, whole, room, count))
        yield found


def _blocks(text: str) -> Iterator[_Block]:
    """The headings and paragraphs of a text, each from its first character to where the next begins."""
    fenced = False
    start = len(text) - len(text.lstrip())
    ends = [(blank.start(), blank.end()) for blank in _BLANK_LINES.finditer(text, start)]
    for end, following in [*ends, (len(text), len(text))]:
        if start < end and not text[start:end].isspace():
            fences = len(_FENCE.findall(text, start, end))
            if fenced or fences:
                yield start, following, None
            else:
                yield from _headed(text, start, end, following)
            fenced ^= fences % 2 == 1
        start = following


def _headed(text: str, start: int, end: int, following: int) -> Iterator[_Block]:
    """One run of lines without a blank one: its headings, and what stands between them."""
    underlined = _UNDERLINED.fullmatch(text, start, end)
    if underlined:
        depth = 1 if underlined[1][0] == "=" else 2
        yield start, following, Heading(depth, underlined[0].split("\n")[0].strip(), marked=True)
        return
    line_end = text.find("\n", start, end)
    first_line = heading_of(text[start : end if line_end < 0 else line_end], alone=line_end < 0)
    if first_line and not first_line.marked:
        split = following if line_end < 0 else line_end + 1
        yield start, split, first_line
        start = split
    for line in _MARKED_LINE.finditer(text, start, end):
        heading = heading_of(line[0], alone=True)
        if heading is None:
            continue
        if start < line.start():
            yield start, line.start(), None
        start = line.end() + 1 if line.end() < end else following
        yield line.start(), start, heading
    if start < end:
        yield start, following, None


def _kept(text: str, blocks: list[_Block], *, references: bool) -> Iterator[list[_Block]]:
    """The blocks of a text in runs, less the lists of references unless they are wanted."""
    run: list[_Block] = []
    i = 0
    while i < len(blocks):
        heading = blocks[i][2]
        if not references and heading and heading.of_references:
            end = next(
                (j for j in range(i + 1, len(blocks)) if (at := blocks[j][2]) and ends_references(at, heading)),
                len(blocks),
            )
            if are_references(text[blocks[i][1] : blocks[end - 1][1]]):
                if run:
                    yield run
                run, i = [], end
                continue
        run.append(blocks[i])
        i += 1
    if run:
        yield run


def _starts(text: str, blocks: list[_Block]) -> Iterator[tuple[int, Level]]:
    """Where headings and sentences begin."""
    leads = False
    for first, last, heading in blocks:
        level = Level.HEADED if leads else Level.PARAGRAPH
        if heading:
            if not leads:
                level = Level.SECTION if heading.depth <= SECTION_DEPTH else Level.SUBSECTION
            yield first, level
        else:
            for start in sentence_starts(text, first, last):
                yield start, level
                level = Level.SENTENCE
        leads = heading is not None or text[first:last].rstrip().endswith(":")


def _in_fragments(text: str, whole: Piece, room: int, count: Count) -> Iterator[Piece]:
    """A piece that no part holds, in lines, words or characters that one does."""
    cuts = list(_cuts(text, whole.first, whole.last, room, count))
    own = [count(text[first:last]) for first, last, _ in cuts]
    gaps = [float(count(text[here[1] : after[0]])) for here, after in pairwise(cuts)]
    # A word that was cut counts more than what it was cut into.
    scale = max(1.0, whole.tokens / (sum(own) + sum(gaps) or 1))
    for i, (first, last, level) in enumerate(cuts):
        gap = gaps[i] if i < len(gaps) else whole.gap
        yield Piece(first, last, level if i else whole.level, min(room, own[i] * scale), gap)


def _cuts(text: str, first: int, last: int, room: int, count: Count) -> Iterator[tuple[int, int, Level]]:
    for line in _LINE.finditer(text, first, last):
        tokens = count(line[0])
        if tokens <= room:
            yield line.start(), line.end(), Level.LINE
            continue
        size = max(1, len(line[0]) * room // (tokens * _FRAGMENTS_A_PART))
        for words in _grouped(_WORD.finditer(text, line.start(), line.end()), size):
            if count(text[words[0].start() : words[-1].end()]) <= room:
                yield words[0].start(), words[-1].end(), Level.WORD
                continue
            for word in words:
                if count(word[0]) <= room:
                    yield word.start(), word.end(), Level.WORD
                else:
                    yield from _characters(text, word, room, size, count)


def _grouped(words: Iterable[re.Match[str]], size: int) -> Iterator[list[re.Match[str]]]:
    """Words in groups of at most `size` characters, or of one word."""
    group: list[re.Match[str]] = []
    for word in words:
        if group and word.end() - group[0].start() > size:
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _characters(text: str, word: re.Match[str], room: int, size: int, count: Count) -> Iterator[tuple[int, int, Level]]:
    first, level = word.start(), Level.WORD
    while first < word.end():
        last = min(first + size, word.end())
        while last > first + 1 and count(text[first:last]) > room:
            last = (first + last) // 2
        yield first, last, level
        first, level = last, Level.CHARACTER
