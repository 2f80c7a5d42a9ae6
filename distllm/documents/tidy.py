"""The form that every extracted text has: the same bytes always give the same text."""

import re
from unicodedata import normalize

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\u2028\u2029]")
_DROPPED = dict.fromkeys(code for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0xFEFF) if chr(code) not in "\n\t")
_BLANK = re.compile(r"\n{3,}")
_BLOCK = 1_000_000


def tidy(text: str) -> str:
    """Give `text` the common form, in time linear in its length.

    Lines end with a newline alone, and without blanks; no two blank lines follow each other; the text begins
    and ends with something visible; control characters but newline and tab are gone; composed characters
    are one code point (NFC, which unlike NFKC leaves mathematics as it is).
    """
    text = _LINE_ENDS.sub("\n", text)
    # In blocks, so that other threads of the process get their turn in between.
    blocks = (text[start : start + _BLOCK].translate(_DROPPED) for start in range(0, len(text), _BLOCK))
    text = normalize("NFC", "".join(blocks))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK.sub("\n\n", text).strip("\n").rstrip()
