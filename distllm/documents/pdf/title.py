"""What a paper calls itself."""

import re

from distllm.documents.pdf.clean import Hyphens, clean_characters
from distllm.documents.pdf.lines import Line
from distllm.documents.pdf.paragraphs import usual_size

_FEWEST_STATED_WORDS = 3
_FEWEST_SHOWN_WORDS = 2
_MOST_LINES = 5
_MOST_LETTERS = 300
_LARGER = 1.1
_JUNK = re.compile(
    r"no job name|cmbx\d|arxiv:|paper title|use style|microsoft word|untitled|^proceedings of|^pii:"
    r"|powerpoint presentation|^r graphics output|\bjournal of\b|\(page \d+\)$|\.(?:docx?|dvi|tex|pdf|qxd|indd|ps)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{2,}")


def choose_title(stated: str, first_page: list[Line]) -> str | None:
    """Take the title that the PDF states of itself, unless it is junk, else what page 1 has in large type.

    None where neither looks like a title.
    """
    stated = " ".join(clean_characters(stated).split())
    if len(stated.split()) >= _FEWEST_STATED_WORDS and not _JUNK.search(stated):
        return stated[:_MOST_LETTERS]
    return _largest_type(first_page)


def _largest_type(page: list[Line]) -> str | None:
    lines = [line for line in page if not line.aside]
    if not lines:
        return None
    usual = usual_size(lines)
    sizes = sorted({line.size for line in lines if line.size >= _LARGER * usual}, reverse=True)
    for size in sizes:
        shown = _first_block(lines, size)
        text = " ".join(_joined(shown).split())
        enough = len(_WORD.findall(text)) >= _FEWEST_SHOWN_WORDS and len(text) <= _MOST_LETTERS
        if enough and not _JUNK.search(text):
            return text
    return None


def _joined(lines: list[Line]) -> str:
    hyphens, text = Hyphens(()), ""
    for line in lines:
        above, glue = hyphens.meet(text, line.text)
        text = above + glue + line.text
    return hyphens.finish(text)


def _first_block(lines: list[Line], size: float) -> list[Line]:
    """Take the first lines of about this size that follow each other."""
    block: list[Line] = []
    for line in lines:
        if abs(line.size - size) <= 0.03 * size:
            block.append(line)
        elif block:
            break
    return block[:_MOST_LINES]
