"""The kinds of file that distllm reads, and how to tell them."""

import re
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePath
from typing import assert_never

from distllm.documents.extract import Extractor


class Kind(StrEnum):
    """How a file is read."""

    TEXT = "text"
    MARKDOWN = "markdown"
    PDF = "pdf"
    HTML = "html"
    LATEX = "latex"
    OFFICE = "office"


KINDS = {
    ".txt": Kind.TEXT,
    ".text": Kind.TEXT,
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
    ".pdf": Kind.PDF,
    ".html": Kind.HTML,
    ".htm": Kind.HTML,
    ".xhtml": Kind.HTML,
    ".tex": Kind.LATEX,
    ".latex": Kind.LATEX,
    ".docx": Kind.OFFICE,
    ".epub": Kind.OFFICE,
    ".odt": Kind.OFFICE,
    ".pptx": Kind.OFFICE,
    ".rtf": Kind.OFFICE,
}
"""Which suffix, in lower case, stands for which kind. Files found in folders have one of these."""

LARGEST = {
    Kind.TEXT: 64_000_000,
    Kind.MARKDOWN: 64_000_000,
    Kind.PDF: 500_000_000,
    Kind.HTML: 64_000_000,
    Kind.LATEX: 64_000_000,
    Kind.OFFICE: 500_000_000,
}
"""The largest file of each kind, in bytes, that is taken into memory."""

HEAD = 1024
"""How many bytes at the beginning of a file settle its kind."""

_SIGNS = (
    (Kind.PDF, re.compile(rb"%PDF-")),
    (
        Kind.HTML,
        re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^<]*)?(<!--[^<]*-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE),
    ),
    (Kind.LATEX, re.compile(rb"(\s|%.*\n)*\\documentclass\b")),
    (
        Kind.OFFICE,
        re.compile(rb"\{\\rtf\d|PK\x03\x04.{26}(mimetypeapplication/|\[Content_Types\]\.xml|_rels/)", re.DOTALL),
    ),
)


def known_suffixes() -> str:
    """Name the suffixes of all kinds for a message, as in `.markdown .md .pdf`."""
    return " ".join(sorted(KINDS))


def kind_of(path: PurePath) -> Kind | None:
    """Tell the kind by the suffix of `path`; None where it stands for none."""
    return KINDS.get(path.suffix.lower())


def sniff(head: bytes, kind: Kind | None) -> Kind:
    """Settle the kind of a file that begins with `head`, for which the suffix stands for `kind`.

    A PDF under the name of a text is read as a PDF; what has no known suffix is what its beginning looks
    like, else a text.
    """
    for means, sign in _SIGNS:
        if (kind is None or means is Kind.PDF) and sign.match(head[:HEAD]):
            return means
    return kind or Kind.TEXT


def extractor(kind: Kind, path: Path) -> Extractor:
    """Fetch the function that reads the bytes of `path` as `kind`, importing only what this kind needs.

    Most kinds need the bytes alone; LaTeX is in several files of one folder, and an office format is told
    by its suffix.
    """
    match kind:
        case Kind.PDF:
            from distllm.documents.pdf import extract_pdf

            return extract_pdf
        case Kind.MARKDOWN:
            from distllm.documents.markdown import extract_markdown

            return extract_markdown
        case Kind.HTML:
            from distllm.documents.html import extract_html

            return extract_html
        case Kind.LATEX:
            from distllm.documents.latex import extract_latex

            return partial(extract_latex, folder=path.parent)
        case Kind.OFFICE:
            from distllm.documents.office import extract_office

            return partial(extract_office, suffix=path.suffix.lower())
        case Kind.TEXT:
            from distllm.documents.text import extract_text

            return extract_text
        case _:
            assert_never(kind)
