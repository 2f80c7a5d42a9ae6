"""Where sentences end, so far as that can be told without knowing the language.

English abbreviations are known; in other languages a dot after one of theirs may be taken for an end, where a
capital follows. Titles and verse without stops are one long sentence.
"""

import re
from collections.abc import Iterator

_STOP = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019\u00bb)\]]*+(?=\s)"
    r"|(?<![\u3002\uff01\uff1f])[\u3002\uff01\uff1f]++[\u300d\u300f\u201d\u2019\uff09]*+"
)
_ABBREVIATED = re.compile(
    r"al|approx|ca|cf|ch|chap|chs|col|cols|cor|def|defs|dept|dr|ed|eds|e\.g|eg|eq|eqn|eqns|eqs|ex|exp|fig|figs|"
    r"ibid|i\.e|ie|inc|incl|jr|lem|lett|ltd|max|min|mr|mrs|ms|mt|no|nos|op|p|phys|pp|prof|prop|ref|refs|resp|"
    r"rev|sec|sect|sects|secs|sr|st|suppl|tab|tabs|thm|trans|univ|viz|vol|vols|vs|w\.r\.t",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8
_ITEM = re.compile(r"\n[ \t]*+(?=[-*+\u2022|][ \t]|\(?\d{1,3}[.)][ \t]|\[\d{1,4}\][ \t]|[^\n|]{0,200} \| )")
"""The next item of a list, or row of a table."""


def sentence_starts(text: str, first: int, last: int) -> Iterator[int]:
    """Where each sentence, item and row between `first` and `last` begins, `first` included, in order."""
    starts = {first}
    for stop in _STOP.finditer(text, first, last):
        start = _after_blanks(text, stop.end(), last)
        if start < last and _ends_sentence(text, first, stop, start):
            starts.add(start)
    starts.update(item.end() for item in _ITEM.finditer(text, first, last))
    yield from sorted(starts)


def _after_blanks(text: str, place: int, last: int) -> int:
    while place < last and text[place].isspace():
        place += 1
    return place


def _ends_sentence(text: str, first: int, stop: re.Match[str], start: int) -> bool:
    """Whether `stop` ends a sentence, when the next word begins at `start`."""
    if not stop[0].startswith("."):
        return not text[start].islower()
    if text[start].islower() or (len(stop[0]) == 1 and text[start] in ",;:)"):
        return False
    if len(stop[0]) > 1:
        return True
    word = _word_before(text, first, stop.start())
    # A single letter is an initial, or stands for a word: J. Smith, z. B.
    return word != "" and not (len(word) == 1 and word.isalpha()) and _ABBREVIATED.fullmatch(word) is None


def _word_before(text: str, first: int, place: int) -> str:
    """What stands before a dot, back to a blank or a bracket; the number that begins a line is no word."""
    start = place
    while start > first and place - start <= _LONGEST_ABBREVIATION and text[start - 1] not in " \n\t\u00a0([{\"'":
        start -= 1
    word = text[start:place]
    return "" if word.isdecimal() and (start == first or text[start - 1] == "\n") else word
