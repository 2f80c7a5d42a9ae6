"""Characters as people write them, and words that a line's end has split."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from distllm.documents.pdf.lines import HYPHEN

_LIGATURES = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
    "\ufb06": "st",
    # The places of the same in TeX's T1 encoding, which fonts without a map to Unicode let through.
    "\x1b": "ff",
    "\x1c": "fi",
    "\x1d": "fl",
    "\x1e": "ffi",
    "\x1f": "ffl",
}
# A lone T1 code is no ligature but a sign of some other font.
_LIGATURE = re.compile("[\ufb00-\ufb06]|(?<=[A-Za-z])[\x1b-\x1f]|[\x1b-\x1f](?=[a-z])")
# The last is the place of the bullet in TeX's TS1 encoding.
_BULLET = re.compile("[\uf0b7\uf0a7]|^\\s*\x88(?=\\s)")
_UNREADABLE = re.compile("[\x00\x01\x03-\x08\x0b-\x1f\ufffd\ufffe\uffff\ue000-\uf8ff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_SPLIT_END = re.compile(f"([^\\W\\d_]+)[{HYPHEN}\u00ad\u2010-]$")
_SPLIT_START = re.compile(r"[^\W\d_]+")
_IDEOGRAPH = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_LONGEST_WORD = 100
_LONG_WORD = 4


def clean_characters(text: str) -> str:
    """Write ligatures as letters, and drop what stands for no character. PDFium's hyphens stay."""
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    text = _LIGATURE.sub(lambda match: _LIGATURES[match[0]], text)
    return _UNREADABLE.sub("", _BULLET.sub("\u2022", text)).strip()


class Hyphens:
    """Joins lines to text, and words that a line's end has split as the document writes them elsewhere."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Count the words of all `lines` of a document."""
        lines = list(lines)
        self._uses = Counter(word.lower() for line in lines for word in _WORD.findall(line))
        # The halves of split words are no words.
        for above, below in pairwise(lines):
            split, start = _SPLIT_END.search(above, max(0, len(above) - _LONGEST_WORD)), _SPLIT_START.match(below)
            if split and start:
                self._uses.subtract((split[1].lower(), start[0].lower()))

    def meet(self, above: str, below: str, glue: str = " ") -> tuple[str, str]:
        """Say how a line goes on in the one below it: as which text, and with what between the two.

        That is `glue`, or nothing where one word or a sentence in ideographs goes on.
        """
        split, start = _SPLIT_END.search(above, max(0, len(above) - _LONGEST_WORD)), _SPLIT_START.match(below)
        if split and start:
            first, second = split[1].lower(), start[0].lower()
            whole = first if above[split.start() - 1 : split.start()] == "-" else ""
            whole = second if below[start.end() : start.end() + 1] == "-" else whole
            kept = "-" if self._keeps_hyphen(first, second, whole) else ""
            return above[: split.end(1)] + kept, ""
        if _IDEOGRAPH.match(above[-1:]) and _IDEOGRAPH.match(below):
            return above, ""
        return above, glue

    def _keeps_hyphen(self, first: str, second: str, whole: str) -> bool:
        """Say whether two parts are a compound, as order-of-magnitude is, rather than halves of a word.

        `whole` is the one that has a hyphen at its other side too, if any.
        """
        solid, hyphenated = self._uses[first + second], self._uses[f"{first}-{second}"]
        if solid or hyphenated:
            return hyphenated > solid
        if whole:
            return self._uses[whole] > 0
        return all(len(word) >= _LONG_WORD and self._uses[word] > 1 for word in (first, second))

    @staticmethod
    def finish(text: str) -> str:
        """Write PDFium's marks for hyphens, where no word went on after them, as hyphens."""
        return text.replace(HYPHEN, "-")
