"""Rows that are too wide for a table: their columns stand below each other, a row after another."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from distllm.cli.screen import out, safe


def print_records(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print each row as lines of name and value."""
    for place, row in enumerate(rows, 1):
        out.rule(Text(f"row {place}", style="dim"), align="left", style="dim")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="bold", overflow="fold")
        grid.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            grid.add_row(safe(name), "" if value is None else safe(value))
        out.print(grid)
