"""What people see: text made safe for a terminal, tables, and progress that is live only on one."""

import json
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distllm.domain.text import shown

_WIDTH_WITHOUT_TERMINAL = 120
_READABLE = 16
PLAIN_LINE_EVERY_SECONDS = 5.0


class Screen(Console):
    """A console whose reader may leave: then it raises BrokenPipeError, which is no failure of the command."""

    def on_broken_pipe(self) -> None:
        """Leave it to the command, where Rich itself would end the process with 1."""
        raise BrokenPipeError


def _has_width() -> bool:
    """Whether someone sits at a terminal of some width, though the output may go through a pager to it."""
    return sys.stdout.isatty() or sys.stderr.isatty()


out = Screen(highlight=False, markup=False, emoji=False, width=None if _has_width() else _WIDTH_WITHOUT_TERMINAL)
err = Console(highlight=False, markup=False, emoji=False, stderr=True)


def tell(text: str, console: Console = out, *, hang: int = 2) -> None:
    """Print lines: as they are, but with no word broken on a terminal, where the rest of a line is set in by `hang`."""
    for line in safe(text).split("\n"):
        words = line.lstrip(" ")
        margin = len(line) - len(words)
        if not console.is_terminal or cell_len(line) <= console.width:
            console.print(line, soft_wrap=True)
            continue
        # What the first line leaves is set in, so that it seems to go on with it.
        first, *_ = Text(words).wrap(console, max(1, console.width - margin))
        rest = Text(words[len(first.plain) :].lstrip(" ")).wrap(console, max(1, console.width - margin - hang))
        console.print(" " * margin + first.plain.rstrip(), soft_wrap=True)
        for piece in rest:
            console.print(" " * (margin + hang) + piece.plain.rstrip(), soft_wrap=True)


def safe(value: object) -> str:
    """Text without the characters that a terminal obeys: documents and answers are strangers' words."""
    return shown(str(value))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numbers: Iterable[str] = (),
    *,
    whole: Iterable[str] = (),
    spare: Sequence[str] = (),
    one_line: bool = False,
) -> Table:
    """A table that fits the terminal; the columns named in `numbers` are set to the right.

    Numbers and what is `whole` are never broken; other text is, or is cut where each row is to be `one_line`.
    Where there is no room, the columns named in `spare` are left out, the first named first.
    """
    right, unbroken = set(numbers), {*numbers, *whole}
    cells = [["" if value is None else safe(value) for value in row] for row in rows]
    shown = list(range(len(columns)))
    for name in spare:
        if _narrowest([(columns[i], [row[i] for row in cells]) for i in shown], unbroken) <= out.width:
            break
        shown.remove(columns.index(name))
    grid = Table(show_lines=False, header_style="bold", border_style="dim")
    natural = {i: max(cell_len(columns[i]), *(cell_len(row[i]) for row in cells), 0) for i in shown}
    room = out.width - 1 - 3 * len(shown) - sum(natural[i] for i in shown if columns[i] in unbroken)
    widest = _shares(room, {i: natural[i] for i in shown if columns[i] not in unbroken})
    for i in shown:
        grid.add_column(
            safe(columns[i]),
            justify="right" if columns[i] in right else "left",
            overflow="ellipsis" if one_line else "fold",
            no_wrap=one_line or columns[i] in unbroken,
            max_width=widest.get(i) if one_line else None,
        )
    for row in cells:
        grid.add_row(*(row[i] for i in shown))
    return grid


def fits(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a table of this would be easy to read here."""
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    return _narrowest([(name, [row[i] for row in cells]) for i, name in enumerate(columns)], ()) <= out.width


def _shares(room: int, wanted: Mapping[int, int]) -> dict[int, int]:
    """How much of `room` each gets: what it wants, or an equal share of what the modest ones leave."""
    given: dict[int, int] = {}
    for place, (key, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        given[key] = max(1, min(want, (room - sum(given.values())) // (len(wanted) - place)))
    return given


def _narrowest(columns: Sequence[tuple[str, Sequence[str]]], unbroken: Collection[str]) -> int:
    """The width that a table needs to be read with ease."""
    return 1 + sum(
        3 + max(len(name), min(max(map(cell_len, cells), default=0), 1000 if name in unbroken else _READABLE))
        for name, cells in columns
    )


def print_json(facts: object) -> None:
    """Print facts as a program wants them: one JSON value on one line."""
    out.print(json.dumps(facts), soft_wrap=True)


def let_go() -> int:
    """Write nothing more to standard output, whose reader has gone; the exit code of a command that ends by it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def complain(text: str) -> None:
    """A line on stderr about what is wrong, where a command goes on all the same."""
    err.print(safe(f"distllm: {text}"), soft_wrap=True)


class Ticker:
    """Progress: one line that is rewritten on a terminal, a new line now and then elsewhere.

    Nothing is shown in the first `quiet` seconds: what has ended by then needs no progress.
    """

    def __init__(self, quiet: float = 0.0) -> None:
        self._quiet_until = time.monotonic() + quiet
        self._live = err.status("") if err.is_terminal else None
        self._last = ""
        self._printed_at = -PLAIN_LINE_EVERY_SECONDS

    def show(self, text: str) -> None:
        """Show where things stand."""
        if time.monotonic() < self._quiet_until:
            return
        if self._live is not None:
            # A string would be taken for Rich's markup, which has links.
            self._live.update(Text(safe(text), no_wrap=True, overflow="ellipsis"))
            self._live.start()
            return
        now = time.monotonic()
        if text != self._last and now - self._printed_at >= PLAIN_LINE_EVERY_SECONDS:
            self._printed_at = now
            self._last = text
            tell(text, err)

    def say(self, text: str) -> None:
        """A line that stays."""
        tell(text, err)

    def clear(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
