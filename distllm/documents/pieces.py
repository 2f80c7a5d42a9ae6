"""What a text is made of, in order: the smallest pieces that parts of it are made from, and how good a cut is there."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

from distllm.documents.blocks import Block, blocks_of, without_references
from distllm.documents.headings import SECTION_DEPTH
from distllm.documents.sentences import sentence_starts

Count = Callable[[str], int]
"""How many tokens a text has; nearly the sum of what its pieces have."""


class Level(IntEnum):
    """What begins with a piece, and so how good a cut before it is."""

    CHARACTER = 0
    WORD = 1
    CLAUSE = 2
    LINE = 3
    HEADED = 4
    """What a heading or a colon above it leads to, so that the two belong together."""
    SENTENCE = 5
    PARAGRAPH = 6
    SUBSECTION = 7
    SECTION = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """The characters [first, last) of a text, with what they count, and the white space after them."""

    first: int
    last: int
    level: Level
    tokens: float
    gap: float


_LINE = re.compile(r"\S[^\n]*")
_CLAUSE_GAP = re.compile(r"(?<=[.!?;:])\s+")
_WORD = re.compile(r"\S+")
_LONGEST_SENTENCE = 200
"""In tokens; what has more, and lines, is a table or a program."""

_FRAGMENTS_A_PART = 16
"""How many pieces of a line that no part holds make one, where it has words alone."""

_CLAUSES_A_GROUP = 4
"""How many times as long as such a piece a clause may be, to be left whole."""

_CLOSING = (".", "!", "?", ":", '"', "'", ")", "]", "\u201d", "\u2019", "\u3002", "\uff01", "\uff1f")


def pieces_of(text: str, room: int, count: Count, *, references: bool) -> Iterator[list[Piece]]:
    """The pieces of `text`, each of at most `room` tokens, in lists between which something is left out."""
    gap_tokens = lru_cache(maxsize=1000)(count)
    blocks = blocks_of(text)
    for run in [blocks] if references else without_references(text, blocks):
        found: list[Piece] = []
        starts = list(_starts(text, run))
        ends = [*(first for first, _ in starts[1:]), *(block.last for block in run[-1:])]
        for (first, level), last in zip(starts, ends, strict=True):
            end = first + len(text[first:last].rstrip())
            whole = Piece(first, end, level, count(text[first:end]), float(gap_tokens(text[end:last])))
            found.extend([whole] if _is_whole(text, whole, room) else _fragments(text, whole, room, count))
        if found:
            yield found


def _is_whole(text: str, piece: Piece, room: int) -> bool:
    return piece.tokens <= room and (piece.tokens <= _LONGEST_SENTENCE or text.find("\n", piece.first, piece.last) < 0)


def _starts(text: str, blocks: Sequence[Block]) -> Iterator[tuple[int, Level]]:
    """Where headings and sentences begin."""
    before = None
    for block in blocks:
        level = _level(text, before, block)
        if block.heading:
            yield block.first, level
        else:
            for start in sentence_starts(text, block.first, block.last):
                yield start, level
                level = Level.SENTENCE
        before = block


def _level(text: str, before: Block | None, block: Block) -> Level:
    end = "" if before is None else text[before.first : before.last].rstrip()[-1:]
    if (before is not None and before.heading) or end == ":":
        return Level.HEADED
    if block.heading:
        return Level.SECTION if block.heading.depth <= SECTION_DEPTH else Level.SUBSECTION
    # A page may break a paragraph, and what stands in formulas, tables and figures is none.
    if text[block.first].islower():
        return Level.LINE
    return Level.PARAGRAPH if end.endswith(_CLOSING) else Level.SENTENCE


def _fragments(text: str, whole: Piece, room: int, count: Count) -> Iterator[Piece]:
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
        start, end = line.start(), line.start() + len(line[0].rstrip())
        tokens = count(text[start:end])
        if tokens <= room:
            yield start, end, Level.LINE
            continue
        size = max(1, (end - start) * room // (tokens * _FRAGMENTS_A_PART))
        for clause in _clauses(text, start, end):
            for here, there, level in _in_words(text, *clause, size, room, count):
                yield here, there, Level.LINE if here == start else Level.CLAUSE if here == clause[0] else level


def _clauses(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    for gap in _CLAUSE_GAP.finditer(text, first, last):
        yield first, gap.start()
        first = gap.end()
    yield first, last


def _in_words(text: str, first: int, last: int, size: int, room: int, count: Count) -> Iterator[tuple[int, int, Level]]:
    """A clause as it is if it is short, else its words in groups of about `size` characters."""
    if last - first <= _CLAUSES_A_GROUP * size and count(text[first:last]) <= room:
        yield first, last, Level.CLAUSE
        return
    for words in _grouped(_WORD.finditer(text, first, last), size):
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
