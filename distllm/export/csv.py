"""CSV, made for spreadsheets: UTF-8 with a byte order mark, CRLF, and no cell that would be run as a formula.

A text that begins as a formula does (=, +, -, @, after spaces or not; a tab, a carriage return) gets an apostrophe
before it, and so does one that begins with apostrophes and then like that; negative numbers do not. To undo it,
take one apostrophe from every cell that begins with some and goes on like a formula: `unguarded` does.
"""

import csv as standard
import io
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from distllm.export.rows import long_rows, wide_columns, wide_row
from distllm.export.source import Source
from distllm.store.exports import ANSWER_COLUMNS

LONGEST_IN_EXCEL = 32_767
_FORMULA = re.compile(r"'*(?:[\t\r]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_NUMBER = re.compile(r"-\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


async def csv(source: Source, wide: bool) -> AsyncIterator[bytes]:
    """A header, then a row for each answer or, if wide, for each document."""
    columns = wide_columns(source.questions) if wide else list(ANSWER_COLUMNS)
    yield b"\xef\xbb\xbf" + csv_rows([columns])
    if wide:
        async for section in source.sections():
            cells = [_answer(cell) for cell in wide_row(section, source.questions)]
            source.too_long_for_excel += _too_long(cells)
            yield csv_rows([cells])
        return
    async for rows in long_rows(source):
        source.too_long_for_excel += sum(_too_long(row.values()) for row in rows)
        yield csv_rows([row.values() for row in rows])


def csv_rows(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows as they stand in a file; None is an empty cell."""
    text = io.StringIO()
    standard.writer(text).writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def guarded(cell: Any) -> Any:
    """The cell, with an apostrophe before a text that a spreadsheet would run."""
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unguarded(cell: str) -> str:
    """What `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _answer(cell: Any) -> Any:
    return cell["answer"] if isinstance(cell, dict) else cell


# Excel counts in UTF-16, in which characters beyond the first plane are two.
def _too_long(cells: Iterable[Any]) -> int:
    return sum(
        isinstance(cell, str)
        and 2 * len(cell) > LONGEST_IN_EXCEL
        and len(cell.encode("utf-16-le", "replace")) // 2 > LONGEST_IN_EXCEL
        for cell in cells
    )
