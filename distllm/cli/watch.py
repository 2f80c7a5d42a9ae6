"""`distllm status --watch`: the same facts again and again, drawn on a terminal and told in lines elsewhere."""

import asyncio
import json
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich.live import Live

from distllm.cli.screen import PLAIN_LINE_EVERY_SECONDS, out, safe
from distllm.cli.status import gather, rest_of, show
from distllm.cli.watch_view import job_screen, jobs_screen
from distllm.domain.places import DatabasePlace
from distllm.domain.words import number, span, state_of
from distllm.store.reads import open_reader

if TYPE_CHECKING:
    from distllm.insights import JobNow, Rest

LOOK_EVERY_SECONDS = 0.5
DRAW_AT_LEAST_EVERY_SECONDS = 1.0
"""Also where nothing was committed: the time that is left goes down, and a coordinator may die."""

EXIT_INTERRUPTED = 130
Record = dict[str, Any]
T = TypeVar("T")

JobsNow = tuple[list[Record], int | None, "Rest | None"]
"""All jobs, the process of the coordinator, and whether it rests."""

Changes = Callable[[], Awaitable[int]]
"""A number that differs once anything has changed."""


def watch_jobs(db: DatabasePlace, as_json: bool) -> int:
    """Show all jobs until interrupted: new ones may come."""
    return until_interrupted(_watch_jobs(db, as_json))


def watch_job(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    """Show one job until it has ended."""
    return until_interrupted(_watch_job(db, job_id, as_json))


def until_interrupted(watching: Awaitable[int]) -> int:
    """Run what goes on until it ends or someone interrupts it; return the exit code."""

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        # A terminal must be left as it was found.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await watching

    try:
        return asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


async def _watch_jobs(db: DatabasePlace, as_json: bool) -> int:
    async with open_reader(db) as reader:

        async def look() -> JobsNow:
            return await reader.jobs(), await reader.coordinator(), await rest_of(reader)

        return await keep_showing_jobs(reader.changes, look, as_json)


async def _watch_job(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    async with open_reader(db) as reader:
        return await keep_showing_job(reader.changes, lambda: gather(reader, job_id), as_json)


async def keep_showing_jobs(changes: Changes, look: Callable[[], Awaitable[JobsNow]], as_json: bool) -> int:
    """Show all jobs, wherever they are looked at, for ever."""
    display: _Display[JobsNow] = _Screen(lambda seen, height: jobs_screen(*seen, height))
    if not _draws(as_json):
        display = _Lines(lambda seen: [_told(job, None, job, as_json) for job in seen[0]])
    await _watch(changes, look, display, ended=lambda _: False)
    return 0


async def keep_showing_job(changes: Changes, look: Callable[[], Awaitable["JobNow"]], as_json: bool) -> int:
    """Show a job, wherever it is looked at, until it has ended."""
    display: _Display[JobNow] = _Screen(job_screen)
    if not _draws(as_json):
        display = _Lines(lambda now: [_told(now.job, now.eta, now.facts(), as_json)])
    last = await _watch(changes, look, display, ended=lambda now: now.ended)
    if _draws(as_json):
        show(last)
    return 0


def _draws(as_json: bool) -> bool:
    return out.is_terminal and not out.is_dumb_terminal and not as_json


async def _watch(
    changes: Changes, look: Callable[[], Awaitable[T]], display: "_Display[T]", ended: Callable[[T], bool]
) -> T:
    """Look and draw until it has `ended`; return what was seen last."""
    seen_changes, drawn_at = -1, 0.0
    with display:
        while True:
            now = await changes()
            if now != seen_changes or display.resized() or time.monotonic() - drawn_at >= DRAW_AT_LEAST_EVERY_SECONDS:
                seen_changes, drawn_at = now, time.monotonic()
                seen = await look()
                display.draw(seen, last=ended(seen))
                if ended(seen):
                    return seen
            await asyncio.sleep(LOOK_EVERY_SECONDS)


class _Display(ABC, Generic[T]):
    """Where what is seen goes to."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def resized(self) -> bool:
        """Whether what was drawn no longer fits."""
        return False

    @abstractmethod
    def draw(self, seen: T, *, last: bool) -> None:
        """Show what was seen; `last` if nothing will follow."""


class _Screen(_Display[T]):
    """The whole terminal, drawn over in place."""

    def __init__(self, view: Callable[[T, int], Any]) -> None:
        self._view = view
        self._live = Live(console=out, screen=True, auto_refresh=False)
        self._size = out.size

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def resized(self) -> bool:
        before, self._size = self._size, out.size
        return before != self._size

    def draw(self, seen: T, *, last: bool) -> None:
        self._live.update(self._view(seen, out.height), refresh=True)


class _Lines(_Display[T]):
    """A line for each job that has changed, not oftener than logs can bear. `lines` gives (job, line, ended)."""

    def __init__(self, lines: Callable[[T], list[tuple[int, str, bool]]]) -> None:
        self._lines = lines
        self._told: dict[int, str] = {}
        self._told_at: float | None = None

    def draw(self, seen: T, *, last: bool) -> None:
        now = time.monotonic()
        first = self._told_at is None
        if self._told_at is not None and not last and now - self._told_at < PLAIN_LINE_EVERY_SECONDS:
            return
        for job_id, line, ended in self._lines(seen):
            # What had ended before anybody watched is no news, unless it is all that was asked for.
            if self._told.get(job_id) != line and not (first and ended and not last):
                self._told_at = now
                out.print(safe(line), soft_wrap=True)
            self._told[job_id] = line


def _told(job: Record, eta: float | None, facts: Record, as_json: bool) -> tuple[int, str, bool]:
    return job["job_id"], json.dumps(facts) if as_json else _line(job, eta), job["finished_at"] is not None


def _line(job: Record, eta: float | None) -> str:
    line = (
        f"job {job['job_id']}, {job['job']}: {state_of(job)}, {number(job['done'])} of {number(job['total'])} answered"
    )
    if job["failed"]:
        line += f", {number(job['failed'])} failed"
    return line if eta is None else f"{line}, about {span(eta)} left"
