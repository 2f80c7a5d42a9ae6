"""`distllm query`."""

import asyncio
import csv
import json
import sys
from pathlib import Path

from distllm.cli.screen import err, out, safe, table
from distllm.store.reads import query

MOST_ROWS = 100_000


def show_query(db: Path, sql: str, output: str) -> int:
    """Run a SELECT and print its rows."""
    names, rows, more = asyncio.run(query(db, sql, MOST_ROWS))
    match output:
        case "json":
            records = [dict(zip(names, row, strict=True)) for row in rows]
            out.print(json.dumps(records, default=str), soft_wrap=True)
        case "csv":
            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            # A terminal obeys some characters; a file keeps them all.
            writer.writerows([map(_shown, row) for row in rows] if sys.stdout.isatty() else rows)
        case _:
            grid = table(names, rows)
            grid.show_lines = any(len(str(value)) > 60 for row in rows for value in row)
            out.print(grid)
    if more:
        err.print(f"only the first {MOST_ROWS:,} rows are shown; add a LIMIT")
    return 0


def _shown(value: object) -> object:
    return safe(value) if isinstance(value, str) else value
