"""`distllm query`."""

import base64
import json
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from distllm.cli.records import print_records
from distllm.cli.screen import err, fits, let_go, out, safe, table
from distllm.domain.places import DatabasePlace
from distllm.export.csv import csv_rows
from distllm.export.target import named
from distllm.store.queries import TABLE_ROWS, Query, in_table, open_query
from distllm.store.tx import Row

ROWS = 1_000_000
EXIT_INTERRUPTED = 130
_HINT = ": --format json shows them all"


def show_query(db: DatabasePlace, sql: str, output: str, limit: int | None, seconds: float) -> int:
    """Run a SELECT for `seconds` at most and print its rows: a page at a time, except as a table."""
    most = limit or (TABLE_ROWS if output == "table" else ROWS)
    try:
        # One row more tells whether there are more.
        with open_query(db, sql, seconds, most + 1) as query, named("standard output"):
            more = _show(query, output, most)
    except BrokenPipeError:
        return let_go()
    except KeyboardInterrupt:
        err.print("interrupted")
        return EXIT_INTERRUPTED
    if more:
        err.print(f"only the first {most:,} rows are shown; --limit N shows more", soft_wrap=True)
    return 0


def _show(query: Query, output: str, most: int) -> bool:
    """Print at most that many rows; whether there were more."""
    pages = _Limited(query.pages(), most)
    match output:
        case "json":
            _print_json(query.names, pages)
        case "csv":
            _print(csv_rows([query.names]))
            for page in pages:
                _print(csv_rows([map(_in_csv, row) for row in page]))
        case _:
            rows = [[in_table(value, _HINT) for value in row] for row in chain.from_iterable(pages)]
            if fits(query.names, rows):
                grid = table(query.names, rows)
                grid.show_lines = any(len(value) > 60 for row in rows for value in row)
                out.print(grid)
            else:
                print_records(query.names, rows)
    sys.stdout.flush()
    return pages.more


class _Limited:
    """Pages up to a number of rows; `more` tells afterwards whether some were left."""

    def __init__(self, pages: Iterator[list[Row]], most: int) -> None:
        self._pages = pages
        self._left = most
        self.more = False

    def __iter__(self) -> Iterator[list[Row]]:
        for page in self._pages:
            if self._left:
                yield page[: self._left]
            if len(page) > self._left:
                self.more = True
                return
            self._left -= len(page)


def _print_json(names: Sequence[str], pages: _Limited) -> None:
    """An array, a row a line. A statement that fails in its middle leaves it open: half of it is not valid."""
    keys = [json.dumps(name, ensure_ascii=False) for name in names]
    before = "[\n"
    for page in pages:
        lines = (
            "{" + ", ".join(f"{key}: {_in_json(value)}" for key, value in zip(keys, row, strict=True)) + "}"
            for row in page
        )
        _print((before + ",\n".join(lines)).encode("utf-8", "replace"))
        before = ",\n"
    _print(b"[]\n" if before == "[\n" else b"\n]\n")


def _print(piece: bytes) -> None:
    """A terminal obeys some characters; a file keeps them all."""
    sys.stdout.buffer.write(safe(piece.decode()).encode() if sys.stdout.isatty() else piece)


def _in_json(value: object) -> str:
    """JSON has no blob, and no infinity but a number that is too large."""
    if isinstance(value, bytes):
        return json.dumps({"$base64": True, "encoded": base64.b64encode(value).decode()})
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    return json.dumps(value, ensure_ascii=False)


def _in_csv(value: object) -> object:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value
