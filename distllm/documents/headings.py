"""Which lines are headings, and which sections are lists of references."""

import re
from dataclasses import dataclass

SECTION_DEPTH = 2
"""Where headings are not marked: what a section's is taken for; subsections are deeper."""

_LONGEST = 120
_MARKED = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_NUMBERED = re.compile(
    r"(?:(?i:section|chapter|part|appendix)[ \t]+)?((?:\d{1,2}|[A-Z]|[IVX]{1,5})(?:\.\d{1,2}){0,4})[.:)]?[ \t]+(\S.*)"
)
_LEADER = re.compile(r"(?:\.[ \t]?){4,}|\|")
_NAMES = re.compile(
    "abstract|summary|introduction|background|related work|methods|method|materials and methods|methods and materials|"
    "online methods|methodology|experiments|results|findings|results and discussion|evaluation|discussion|limitations|"
    "conclusion|conclusions|concluding remarks|future work|acknowledgements|acknowledgments|acknowledgement|"
    "acknowledgment|funding|author contributions|data availability|code availability|ethics statement|"
    "conflict of interest|conflicts of interest|competing interests|declarations|supporting information|"
    "supplementary material|supplementary materials|supplementary information|supplement|appendix|appendices|annex|"
    "annexes|glossary|abbreviations|notation|tables|figures|figure legends|index|availability|about the authors",
    re.IGNORECASE,
)
_REFERENCES = re.compile(
    "references|reference list|list of references|references cited|cited references|references and notes|"
    "notes and references|bibliography|selected bibliography|literature cited|cited literature|works cited|literature|"
    "literatur|literaturverzeichnis|quellenverzeichnis|références|bibliographie|referencias|bibliografía|bibliografia|"
    "referências|riferimenti bibliografici|literatuur|referenties|referenser",
    re.IGNORECASE,
)
_APPENDIX = re.compile(r"(?:appendix|appendices|annex|supplement\w*|supporting information)\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d[a-z]?\b")
_CHARACTERS_A_REFERENCE = 400
"""At most, on average: each names its year, and so a list of them is told from a text."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading by its depth, 1 for a title, and its words; `marked` where signs, not its looks, make it one."""

    depth: int
    words: str
    marked: bool

    @property
    def of_references(self) -> bool:
        """Whether a list of references follows."""
        return _REFERENCES.fullmatch(_bare(self.words)) is not None


def heading_of(line: str, *, alone: bool) -> Heading | None:
    """What heading a line is, if any; one that only looks like it must stand alone or bear a usual name."""
    line = line.strip()
    if not line or len(line) > _LONGEST:
        return None
    if marked := _MARKED.fullmatch(line):
        words = marked[2].rstrip("#").rstrip()
        return Heading(len(marked[1]), _unnumbered(words), marked=True)
    if _LEADER.search(line):
        return None
    numbered = _NUMBERED.fullmatch(line)
    words = _unnumbered(line)
    name = _bare(words)
    depth = SECTION_DEPTH + (numbered[1].count(".") if numbered else 0)
    if _NAMES.fullmatch(name) or _REFERENCES.fullmatch(name):
        return Heading(depth, words, marked=False)
    if alone and (_APPENDIX.match(name) or _is_title(words, numbered is not None)):
        return Heading(depth, words, marked=False)
    return None


def ends_references(heading: Heading, references: Heading) -> bool:
    """Whether the list of references that follows one heading is over at another."""
    return heading.depth <= references.depth if heading.marked == references.marked else True


def are_references(text: str) -> bool:
    """Whether a text is what the heading above it says: a list of works, each with its year."""
    return len(_YEAR.findall(text)) * _CHARACTERS_A_REFERENCE >= len(text.strip()) > 0


def _bare(words: str) -> str:
    return words.strip(" \t.:*_#")


def _unnumbered(words: str) -> str:
    numbered = _NUMBERED.fullmatch(words)
    return numbered[2] if numbered else words


def _is_title(words: str, numbered: bool) -> bool:
    """Whether words look like a heading: numbered and no sentence, or all in capitals."""
    if words.endswith((".", ",", ";", "-")) or sum(map(str.isalpha, words)) < len(words) * 0.6:
        return False
    if words.isupper():
        return max(map(len, words.split())) >= 4
    return numbered and words[:1].isupper() and "," not in words and any(len(word) >= 4 for word in words.split())
