"""One HTML file that opens anywhere: no script, and nothing is fetched from any other place."""

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

from jinja2 import Template

from distllm.export.rows import missing, note, wide_columns, wide_row
from distllm.export.source import Source, sources_of
from distllm.templates import templates

_PIECE_CHARACTERS = 64 * 1024


async def html(source: Source, wide: bool) -> AsyncIterator[bytes]:
    """What was asked, the answers by document with where they come from, and what has none; as a table, if wide."""
    columns = wide_columns(source.questions)
    pieces = _report().generate_async(
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


@cache
def _report() -> Template:
    found = templates(Path(__file__).parent / "templates", enable_async=True, keep_trailing_newline=True)
    found.filters |= {"sources": sources_of, "missing": missing, "note": note}
    return found.get_template("report.html.jinja")
