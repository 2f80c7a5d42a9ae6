"""The formats by name, and what turns a job into each: imported when it is needed, since the names are for help."""

from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from distllm.export.source import Source


class Format(StrEnum):
    """What a job can be written as."""

    JSONL = "jsonl"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"
    PARQUET = "parquet"


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".parquet": Format.PARQUET,
}


def format_of(path: Path) -> Format | None:
    """The format that a file's name asks for."""
    return _SUFFIXES.get(path.suffix.lower())


def written(source: "Source", form: Format, wide: bool) -> AsyncIterator[bytes]:
    """A job in a format; text formats end each piece where a character ends. Raises DistllmError without pyarrow."""
    match form:
        case Format.JSONL:
            from distllm.export.jsonl import jsonl

            return jsonl(source, wide)
        case Format.CSV:
            from distllm.export.csv import csv

            return csv(source, wide)
        case Format.MARKDOWN:
            from distllm.export.markdown import markdown

            return markdown(source, wide)
        case Format.HTML:
            from distllm.export.html import html

            return html(source, wide)
        case Format.PARQUET:
            from distllm.export.parquet import parquet

            return parquet(source, wide)
        case _:
            assert_never(form)
