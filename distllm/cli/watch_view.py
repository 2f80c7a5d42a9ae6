"""What a watch draws: as much as the terminal has room for, what matters most first."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from distllm.cli.screen import out, safe
from distllm.cli.status_view import (
    fact_lines,
    failure_lines,
    heading,
    jobs_table,
    rest_line,
    worker_errors,
    workers_table,
)
from distllm.domain.words import count, number, state_of

if TYPE_CHECKING:
    from distllm.insights import JobNow, Rest

Record = dict[str, Any]

_AT_WORK = ("running", "paused", "pending", "being built")
_LINES_AROUND_ROWS = 6
"""The heading, the table's own four lines, and what is said of the rest."""

_WIDEST_BAR = 60


def jobs_screen(jobs: Sequence[Record], live: int | None, rest: "Rest | None", height: int) -> RenderableType:
    """All jobs: what is at work first, then what ended last."""
    states = Counter(state_of(job) for job in jobs)
    known = [state for state in _AT_WORK if states[state]]
    said = ", ".join(f"{number(states[state])} {state}" for state in [*known, *sorted(states.keys() - set(known))])
    at_work = "at work" if rest is None else rest_line(rest)
    coordinator = "no coordinator is live" if live is None else f"process {live} is {at_work}"
    pieces: list[RenderableType] = [_one_line(f"{count(len(jobs), 'job')}{f': {said}' if said else ''}; {coordinator}")]
    if jobs:
        places = {state: place for place, state in enumerate(_AT_WORK)}
        ranked = sorted(jobs, key=lambda job: (places.get(state_of(job), len(places)), -job["job_id"]))
        shown = ranked[: max(1, height - _LINES_AROUND_ROWS)]
        pieces.append(jobs_table(shown, one_line=True))
        if len(shown) < len(jobs):
            pieces.append(_one_line(f"and {number(len(jobs) - len(shown))} more: distllm status"))
    return Group(*pieces)


def job_screen(now: "JobNow", height: int) -> RenderableType:
    """One job: how far it is, its facts, its workers, and what went wrong."""
    bar = ProgressBar(total=max(1, now.job["total"]), completed=now.job["done"], width=min(_WIDEST_BAR, out.width))
    pieces: list[RenderableType] = [
        heading(now.job),
        Padding(bar),
        *fact_lines(now),
    ]
    if now.workers:
        pieces += [workers_table(now.workers, one_line=True), *worker_errors(now.workers)]
    pieces += failure_lines(now.unreadable, now.failures)
    return Group(*_fitting(pieces, height, f"more: distllm status {now.job['job_id']}"))


def _fitting(pieces: Iterable[RenderableType], height: int, rest: str) -> list[RenderableType]:
    """The pieces that fit into `height` lines, each text on one line; the last line tells where the rest is."""
    kept: list[RenderableType] = []
    used: list[int] = []
    for piece in pieces:
        if isinstance(piece, Text):
            piece.no_wrap, piece.overflow = True, "ellipsis"
        kept.append(piece)
        used.append(len(out.render_lines(piece, pad=False)))
        if sum(used) > height:
            while kept and sum(used) > height - 1:
                kept.pop()
                used.pop()
            return [*kept, _one_line(rest)]
    return kept


def _one_line(text: str) -> Text:
    return Text(safe(text), style="bold", no_wrap=True, overflow="ellipsis")
