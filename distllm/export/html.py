"""One HTML file that opens anywhere: no script, and nothing is fetched from any other place."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distllm.domain.text import shown
from distllm.export.rows import missing, note, wide_columns, wide_row
from distllm.export.source import Source, sources_of

_PIECE_CHARACTERS = 64 * 1024


def _without_controls(value: Any) -> Any:
    return shown(value) if isinstance(value, str) else value


async def html(source: Source, wide: bool) -> AsyncIterator[bytes]:
    """What was asked, the answers by document with where they come from, and what has none; as a table, if wide."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        enable_async=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=_without_controls,
    )
    environment.filters |= {"sources": sources_of, "missing": missing, "note": note}
    columns = wide_columns(source.questions)
    pieces = environment.get_template("report.html.jinja").generate_async(
        source=source, job=source.job, wide=wide, columns=columns, cells=lambda row: wide_row(row, source.questions)
    )
    held: list[str] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _PIECE_CHARACTERS:
            yield "".join(held).encode("utf-8", "replace")
            held, size = [], 0
    yield "".join(held).encode("utf-8", "replace")
