"""Parquet: typed columns in row groups. Needs pyarrow, which is 160 MB and therefore an extra."""

import importlib.util
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distllm.domain.errors import DistllmError
from distllm.export.rows import long_rows, wide_columns, wide_row
from distllm.export.source import Source
from distllm.store.exports import ANSWER_COLUMNS
from distllm.store.reads import Record

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS = 10_000
GROUP_CHARACTERS = 16_000_000

_WHOLE_NUMBERS = frozenset(
    {"job_id", "attempts", "prompt_tokens", "cached_tokens", "completion_tokens", "sent_tokens", "parts", "reused_from"}
)


class _Sink:
    """Where pyarrow writes: what is there is taken away after each row group."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def parquet(source: Source, wide: bool) -> AsyncIterator[bytes]:
    """A row for each answer or, if wide, for each document. Raises DistllmError if pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DistllmError(f"Parquet needs pyarrow: {_how_to_add()}")
    return _parquet(source, wide)


async def _parquet(source: Source, wide: bool) -> AsyncIterator[bytes]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = _wide_schema(source.questions) if wide else _long_schema()
    sink = _Sink()
    with ParquetWriter(sink, schema, compression="zstd") as writer:
        async for rows in _groups(_wide(source) if wide else _long(source)):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema), row_group_size=len(rows))
            yield sink.take()
    yield sink.take()


async def _groups(pages: AsyncIterator[list[Record]]) -> AsyncIterator[list[Record]]:
    rows: list[Record] = []
    characters = 0
    async for page in pages:
        rows += page
        characters += sum(len(cell) for row in page for cell in row.values() if isinstance(cell, str))
        if len(rows) >= GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield rows
            rows, characters = [], 0
    if rows:
        yield rows


async def _long(source: Source) -> AsyncIterator[list[Record]]:
    async for rows in long_rows(source):
        yield [row | {"finished_at": datetime.fromisoformat(row["finished_at"])} for row in rows]


async def _wide(source: Source) -> AsyncIterator[list[Record]]:
    columns = wide_columns(source.questions)
    async for section in source.sections():
        cells: list[Any] = [
            cell["answer"] if isinstance(cell, dict) else cell for cell in wide_row(section, source.questions)
        ]
        yield [dict(zip(columns, cells, strict=True))]


def _long_schema() -> "pyarrow.Schema":
    import pyarrow

    special = {"seconds": pyarrow.float64(), "finished_at": pyarrow.timestamp("us", "UTC")}
    special |= dict.fromkeys(_WHOLE_NUMBERS, pyarrow.int64())
    return pyarrow.schema([(name, special.get(name, pyarrow.string())) for name in ANSWER_COLUMNS])


def _wide_schema(questions: list[Record]) -> "pyarrow.Schema":
    import pyarrow

    texts = {question["name"]: question["text"] for question in questions}
    columns = wide_columns(questions)
    schema = pyarrow.schema([(name, pyarrow.int64() if name == "pages" else pyarrow.string()) for name in columns])
    return schema.with_metadata({"distllm.questions": json.dumps(texts)})


def _how_to_add() -> str:
    root = Path(__file__).resolve().parents[2]
    if (root / "uv.lock").is_file():
        return "add it with `uv sync --extra parquet`"
    return "add it with `uv pip install pyarrow`, or `uv tool install --with pyarrow …` for an installed command"
