"""Which lines are headings, and which sections are lists of references.

Signs (`#`) make a heading; else it is guessed from the looks of a line, since an extracted page has no others.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

SECTION_DEPTH = 2
"""That of a section where headings are not marked; subsections are deeper."""


class Style(Enum):
    """How a heading is told from a line of text."""

    MARKED = "by signs"
    NAMED = "by a name that sections usually have"
    NUMBERED = "by a number"
    LETTERED = "by a letter with a dot, as names of people begin"
    CAPITALS = "by capitals alone"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading by its depth, 1 for a title, its words without number and signs, and what made it one."""

    depth: int
    words: str
    style: Style

    @property
    def of_references(self) -> bool:
        """Whether a list of references follows."""
        return self.style in (Style.MARKED, Style.NAMED) and _REFERENCES.fullmatch(self.words) is not None


_LONGEST = 120
_MOST_WORDS = 12
_LEAST_LETTERS = 0.6
_MARKED = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*")
_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+)(?<=\S)\1")
_NUMBERED = re.compile(
    r"(?:(?i:section|chapter|part|appendix)[ \t]+)?"
    r"(?P<number>(?:\d{1,2}|[A-Z]|[IVX]{2,5})(?:\.\d{1,2}){0,4})(?P<dot>[.:)])?[ \t]+(?P<words>\S.*)"
)
_LEADER = re.compile(r"(?:\.[ \t]?){4,}|\|")
_NAMES = re.compile(
    "abstract|summary|introduction|background|related work|methods|method|materials and methods|methods and materials|"
    "online methods|methodology|experiments|results|findings|results and discussion|evaluation|discussion|limitations|"
    "conclusion|conclusions|concluding remarks|future work|acknowledgements|acknowledgments|acknowledgement|"
    "acknowledgment|funding|author contributions|data availability|code availability|ethics statement|"
    "conflicts? of interests?|competing interests|declarations|glossary|abbreviations|notation|tables|figures|"
    "figure legends|availability|about the authors?|(?:appendix|appendices|annex|annexes|supplement|supplementary "
    "materials?|supplementary information|supporting information)(?:[ \t]*[A-Z\\d]{1,2})?(?:[:.] ?.{0,80})?",
    re.IGNORECASE,
)
_REFERENCES = re.compile(
    "references|reference list|list of references|references cited|cited references|references and notes|"
    "notes and references|bibliography|selected bibliography|literature cited|cited literature|works cited|literature|"
    "literatur|literaturverzeichnis|quellenverzeichnis|références|bibliographie|referencias|bibliografía|bibliografia|"
    "referências|riferimenti bibliografici|literatuur|referenties|referenser",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d[a-z]?\b")
_CHARACTERS_A_REFERENCE = 400
"""At most, on average: each names its year, and so a list of them is told from a text."""

_ENOUGH = 3
"""So many headings of a better style, and what only looks like one is none."""


def heading_of(line: str, *, alone: bool) -> Heading | None:
    """What heading a line is, if any; one without signs or a usual name must stand `alone`."""
    line = line.strip()
    if not line or len(line) > _LONGEST:
        return None
    if marked := _MARKED.fullmatch(line):
        _, words, _ = _numbered(marked[2])
        return Heading(len(marked[1]), _bare(words), Style.MARKED) if _may_be_marked(marked[2]) else None
    if _LEADER.search(line) or len(line.split()) > _MOST_WORDS:
        return None
    if bold := _BOLD.fullmatch(line):
        line = bold[2]
    depth, words, style = _numbered(line)
    words = _bare(words) if words.endswith(":") else words
    if _NAMES.fullmatch(words) or _REFERENCES.fullmatch(words):
        return Heading(depth, words, Style.NAMED)
    if alone and _looks_like_one(words, numbered=style is not Style.CAPITALS):
        return Heading(depth, words, style)
    return None


def credible(headings: Sequence[Heading]) -> frozenset[Style]:
    """The styles of what are headings in one text: where enough are marked, or numbered, no others are guessed."""
    found = Counter(heading.style for heading in headings)
    numbered, marked = found[Style.NUMBERED] + found[Style.LETTERED], found[Style.MARKED]
    # Programs begin their remarks with one `#`.
    deep = any(heading.style is Style.MARKED and heading.depth > 1 for heading in headings)
    if numbered >= _ENOUGH and numbered > marked and not deep:
        return frozenset({Style.NUMBERED, Style.LETTERED, Style.NAMED})
    if marked >= _ENOUGH:
        return frozenset({Style.MARKED, Style.NAMED})
    return frozenset(Style)


def ends_references(heading: Heading, references: Heading) -> bool:
    """Whether the list of references that follows one heading is over at another."""
    if heading.style is Style.LETTERED:
        return False
    return heading.style is not references.style or heading.depth <= references.depth


def are_references(text: str) -> bool:
    """Whether a text is what the heading above it says: a list of works, each with its year."""
    return len(_YEAR.findall(text)) * _CHARACTERS_A_REFERENCE >= len(text.strip()) > 0


def _numbered(line: str) -> tuple[int, str, Style]:
    """The depth, the words and the style of a line, which is numbered or may be one in capitals."""
    found = _NUMBERED.fullmatch(line)
    if not found:
        return SECTION_DEPTH, line, Style.CAPITALS
    lettered = found["number"].isalpha() and found["dot"] == "."
    depth = SECTION_DEPTH + found["number"].count(".")
    return depth, found["words"], Style.LETTERED if lettered else Style.NUMBERED


def _bare(words: str) -> str:
    return words.strip(" \t.:*_") or words


def _may_be_marked(words: str) -> bool:
    """Whether words after `#` can be a heading; programs and formulas have the sign too."""
    return words[0].isalnum() and "#" not in words and any(map(str.isalpha, words)) and _is_mostly_letters(words)


def _looks_like_one(words: str, *, numbered: bool) -> bool:
    """Whether words look like a heading: numbered and no sentence, or all in capitals."""
    if words.endswith((".", ",", ";", "-")) or not words[0].isalpha() or not _is_mostly_letters(words):
        return False
    if words.isupper():
        return max(map(len, words.split())) >= 4
    return numbered and words[0].isupper() and "," not in words and any(len(word) >= 4 for word in words.split())


def _is_mostly_letters(words: str) -> bool:
    return sum(map(str.isalpha, words)) + words.count(" ") >= len(words) * _LEAST_LETTERS
