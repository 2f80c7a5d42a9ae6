"""How many tokens a text will be, before any server has counted it."""

import string
from functools import lru_cache
from typing import NamedTuple

from distllm.domain.models import Call

FRAME_TOKENS = 16
"""What a model's chat template adds around one message, from above."""

TEXTS_IN_USE = 256
"""Of how many texts, as many as are asked about at once, something is kept that was made of them."""


class Makeup(NamedTuple):
    """What a text is made of, each part counted: tokens are nearly a sum of these, whatever the tokenizer.

    Of two texts after one another it is the sum.
    """

    words: float = 0
    """Runs of ASCII letters."""
    strange: float = 0
    """Words beyond 20 for each of the commonest of English: other languages, code and tables have many."""
    long: float = 0
    """Letters of words beyond their sixth, and up to the thirtieth."""
    capitals: float = 0
    """Those inside of words."""
    digits: float = 0
    lines: float = 0
    """Runs of newlines."""
    signs: float = 0
    """Runs of other ASCII characters, and of tabs: rulings and rows of dots are few tokens."""
    more: float = 0
    """Signs after the first of a run, and what boxes are drawn with."""
    near: float = 0
    """Latin letters that are not ASCII, quotation marks, dashes, symbols, and the first of a run of others."""
    far: float = 0
    """Characters of other scripts after the first of a run; half of the letters of no word (DNA, base64)."""
    messages: float = 0
    """Frames that a template puts around messages."""


_UPPER = Makeup(
    words=0.94,
    strange=0.4,
    long=0.32,
    capitals=0.35,
    digits=1.3,
    lines=2.2,
    signs=1.1,
    more=0.35,
    near=1.5,
    far=2.8,
    messages=FRAME_TOKENS,
)
"""The tokens of each part, from above."""

_COMMONEST = (b" the ", b" of ", b" and ", b" to ")
_WORDS_FOR_EACH = 20

_LETTERS = string.ascii_letters.encode()
_SPACES = bytes(code for code in range(128) if chr(code).isspace())
_NEITHER = bytes(code for code in range(256) if code not in _LETTERS + _SPACES)
_FEWEST_A_FOREIGN_CHARACTER = 0.2
_CONTINUED = bytes(range(0x80, 0xC0))
"""Bytes of a character in UTF-8 that are not its first."""


def _table(*kinds: tuple[bytes, bytes], rest: bytes) -> bytes:
    """A table for `translate`: each of the bytes of a kind becomes the kind's mark, all others `rest`."""
    table = bytearray(rest * 256)
    for codes, mark in kinds:
        for code in codes:
            table[code] = mark[0]
    return bytes(table)


_LETTER, _CAPITAL, _DIGIT, _SIGN, _NEWLINE, _NEAR, _FAR = (1 << bit for bit in range(7))
_MARKS = _table(
    (string.ascii_lowercase.encode(), bytes([_LETTER])),
    (string.ascii_uppercase.encode(), bytes([_LETTER | _CAPITAL])),
    (string.digits.encode(), bytes([_DIGIT])),
    (_SPACES, b"\0"),
    (b"\n", bytes([_NEWLINE])),
    (b"\t", bytes([_SIGN])),
    (bytes(range(0xC6, 0x100)), bytes([_FAR])),
    (bytes([*range(0xC2, 0xC6), 0xE2]), bytes([_NEAR])),
    rest=bytes([_SIGN]),
)
"""What a character is, each kind a bit; of those that are not ASCII by their first byte. A space is nothing."""

_KINDS = _table((_LETTERS, b"a"), rest=b" ")


def makeup(text: str) -> Makeup:
    """Count what a text is made of.

    Its characters stand in one large number, a byte for each: so a shift and a few masks look at all of them at once,
    many times as fast as a search.
    """
    raw = text.encode("utf-8", "surrogatepass")
    marks = raw.translate(_MARKS, _CONTINUED)
    ones = int.from_bytes(b"\1" * len(marks), "little")
    every = int.from_bytes(marks, "little")
    letters = every & ones
    words = _runs(letters)
    # Of how many letters in a row each is the last, at least: 2, 4, 7; 31 in what is no word.
    two = letters & letters << 8
    four = two & two << 16
    long = (four & four << 24).bit_count()
    eight = four & four << 32
    sixteen = eight & eight << 64
    endless = (sixteen & sixteen << 120).bit_count()
    signs = _runs(every >> 3 & ones)
    unspaced = marks.translate(None, b"\0")
    boxes = near = far = alone = 0
    if len(raw) != len(text):
        boxes = raw.count(b"\xe2\x94") + raw.count(b"\xe2\x95")
        near, far, alone = (every >> 5 & ones).bit_count(), (every >> 6 & ones).bit_count(), _runs(every >> 6 & ones)
    return Makeup(
        words=words,
        strange=max(0, words - _WORDS_FOR_EACH * sum(map(raw.count, _COMMONEST))),
        long=long - endless,
        capitals=(every >> 1 & letters << 8 & ones).bit_count(),
        digits=marks.count(_DIGIT),
        lines=_runs(int.from_bytes(unspaced, "little") >> 4 & ones),
        signs=signs,
        more=marks.count(_SIGN) - signs + boxes,
        near=near - boxes + alone,
        far=far - alone + endless / 2,
    )


def _runs(places: int) -> int:
    """How many runs there are of bytes that are 1."""
    return (places ^ places & places << 8).bit_count()


_makeup = lru_cache(maxsize=TEXTS_IN_USE)(makeup)


def together(*parts: Makeup) -> Makeup:
    """The makeup of texts after one another."""
    return Makeup(*map(sum, zip(*parts, strict=True)))


def texts_of(call: Call) -> tuple[str, ...]:
    """All that a call sends, in its order; what is empty is not sent."""
    return tuple(filter(None, (call.system, *(text for _, text in call.turns), call.question)))


@lru_cache(maxsize=TEXTS_IN_USE)
def makeup_of(texts: tuple[str, ...]) -> Makeup:
    """The makeup of messages with their frames; what is made of a text is kept while it is in use."""
    return together(Makeup(messages=len(texts)), *map(_makeup, texts))


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of `text` from above.

    Against SmolLM2's tokenizer the estimate lies 2 to 26 % over the count on 110 documents of all kinds (papers,
    manuals, code, tables; papers 2 to 18 %), and up to 37 % over with larger vocabularies; Mistral's v3 can exceed it
    by 9 % (by 18 % where tables are drawn of lines), and languages other than English by more with vocabularies that
    do not know them (German with SmolLM2's: 20 %). What a model's own counts teach is in `domain.factors`.
    """
    return round(weigh(makeup(text), _UPPER))


def weigh(parts: Makeup, weights: Makeup) -> float:
    """The sum of all parts, each times its weight."""
    return sum(map(float.__mul__, map(float, parts), map(float, weights)))


def most_tokens(parts: Makeup) -> int:
    """The tokens of what is made up so, from above, before any server has counted."""
    return round(weigh(parts, _UPPER))


@lru_cache(maxsize=TEXTS_IN_USE)
def fewest_tokens(text: str) -> int:
    """The tokens that `text` is at least, whatever the tokenizer.

    No tokenizer in use joins words over white space, so each word with a Latin letter is one or more; rows of
    dots and rulings may be almost none.
    """
    if text.isascii():
        return _latin_words(text)
    foreign = len(text) - len(text.encode("ascii", "ignore"))
    return _latin_words(" ".join(text.split())) + int(_FEWEST_A_FOREIGN_CHARACTER * foreign)


def _latin_words(text: str) -> int:
    """The words, parted by white space of ASCII, that have a Latin letter.

    Counted as the places where letters follow white space, once nothing else is left: many times as fast as a search.
    """
    kinds = text.encode("utf-8", "surrogatepass").translate(_KINDS, _NEITHER)
    return (b" " + kinds).count(b" a")
