"""JSON Lines: an object a line, numbers as numbers, and `data` as what it says."""

import json
from collections.abc import AsyncIterator
from typing import Any

from distllm.export.rows import long_rows, wide_columns, wide_row
from distllm.export.source import Source


async def jsonl(source: Source, wide: bool) -> AsyncIterator[bytes]:
    """A line for each answer or, if wide, for each document."""
    if not wide:
        async for rows in long_rows(source):
            yield b"".join(_line(row | {"data": _parsed(row["data"])}) for row in rows)
        return
    columns = wide_columns(source.questions)
    async for section in source.sections():
        cells = [_answer(cell) for cell in wide_row(section, source.questions)]
        yield _line(dict(zip(columns, cells, strict=True)))


def _answer(cell: Any) -> Any:
    if not isinstance(cell, dict):
        return cell
    return cell["answer"] if cell["data"] is None else _parsed(cell["data"])


def _parsed(data: str | None) -> Any:
    """JSON as its value; as the text it is where no reader could be expected to take it: too deep, or infinite."""
    if data is None:
        return None
    try:
        value = json.loads(data)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return data
    return value


def _line(record: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can write and UTF-8 cannot.
        return (json.dumps(record, allow_nan=False) + "\n").encode()
