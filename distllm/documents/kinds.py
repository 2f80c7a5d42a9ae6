"""The kinds of file that distllm reads, and how to tell them."""

from enum import StrEnum
from pathlib import PurePath

from distllm.documents.extract import Extractor


class Kind(StrEnum):
    """How a file is read."""

    TEXT = "text"
    MARKDOWN = "markdown"
    PDF = "pdf"


KINDS = {
    ".txt": Kind.TEXT,
    ".text": Kind.TEXT,
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
    ".pdf": Kind.PDF,
}
"""Which suffix, in lower case, stands for which kind. Files found in folders have one of these."""

LARGEST = {Kind.TEXT: 64_000_000, Kind.MARKDOWN: 64_000_000, Kind.PDF: 500_000_000}
"""The largest file of each kind, in bytes, that is taken into memory."""


def known_suffixes() -> str:
    """Name the suffixes of all kinds for a message, as in `.markdown .md .pdf`."""
    return " ".join(sorted(KINDS))


def kind_of(path: PurePath) -> Kind | None:
    """Tell the kind by the suffix of `path`; None where it stands for none."""
    return KINDS.get(path.suffix.lower())


def sniff(head: bytes, kind: Kind | None) -> Kind:
    """Settle the kind of a file that begins with `head`, for which the suffix stands for `kind`.

    A PDF under the name of a text is read as a PDF, and what has no known suffix as a PDF or a text.
    """
    if kind is not Kind.PDF and head.startswith(b"%PDF-"):
        return Kind.PDF
    return kind or Kind.TEXT


def extractor(kind: Kind) -> Extractor:
    """Fetch the function that reads `kind`, importing only what this kind needs."""
    if kind is Kind.PDF:
        from distllm.documents.pdf import extract_pdf

        return extract_pdf
    if kind is Kind.MARKDOWN:
        from distllm.documents.markdown import extract_markdown

        return extract_markdown
    from distllm.documents.text import extract_text

    return extract_text
