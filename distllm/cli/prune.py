"""`distllm db prune`."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import typer

from distllm.cli.db import must_exist, without_coordinator
from distllm.cli.screen import Ticker, print_json, tell
from distllm.domain.clock import Clock
from distllm.domain.errors import UsageError
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.domain.text import size_in_words
from distllm.domain.words import count
from distllm.store.database import open_database
from distllm.store.prune import prune
from distllm.store.reads import open_reader
from distllm.store.removal import EndedJob, ended_jobs
from distllm.store.vacuum import space_of, vacuum

DAY_SECONDS = 86_400.0
QUIET_SECONDS = 2.0
EXIT_LEFT = 1
_NAMES = {
    "jobs": "job",
    "prompts": "prompt",
    "results": "answer",
    "attempts": "attempt",
    "worker_metrics": "worker sample",
    "readings": "reading",
    "documents": "document",
}


@dataclass(frozen=True, slots=True)
class Pruning:
    """The options of `distllm db prune`, as they were given."""

    days: int
    jobs: bool
    dry_run: bool
    vacuum: bool
    sure: bool
    as_json: bool


def prune_database(db: DatabasePlace, given: Pruning) -> int:
    """Remove what nobody reads any more, and whole jobs if asked to; print what went. 1 if a person says no."""
    must_exist(db)
    if given.jobs and not (given.sure or given.dry_run) and not sys.stdin.isatty():
        raise UsageError("--jobs removes answers, and nobody is here to be asked: add --yes, or look with --dry-run")
    # Nobody begins to work a file before it is shrunk. A server gives back by itself what is free.
    file = db if given.vacuum and not given.dry_run and isinstance(db, Path) else None
    with without_coordinator(file, "or prune without --vacuum") if file else nullcontext():
        before = Clock().now() - given.days * DAY_SECONDS
        jobs = asyncio.run(_ended(db, before)) if given.jobs else []
        if jobs and not (given.dry_run or given.sure or _agreed(jobs, given.days)):
            tell("Nothing was removed.")
            return EXIT_LEFT
        gone = asyncio.run(_prune(db, before, jobs, given.dry_run))
        whole = _shrink(file) if file else None
    size, free = _room(db)
    if given.as_json:
        facts = {
            "dry_run": given.dry_run,
            "older_than_days": given.days,
            "removed": gone,
            "jobs": [job.job_id for job in jobs],
            "file_bytes": size,
            "free_bytes": free,
            "vacuumed": whole is not None,
        }
        print_json(facts)
        return 0
    _show(gone, given, size, free)
    if whole is False:
        tell("The file is as large as before until a program that reads it lets go of it.")
    return 0


async def _ended(db: DatabasePlace, before: float) -> list[EndedJob]:
    async with open_reader(db) as reader:
        return await ended_jobs(reader, before)


def _room(db: DatabasePlace) -> tuple[int, int | None]:
    """The bytes that a database has, and how many of them are free; a server does not tell these."""
    if isinstance(db, PostgresUrl):
        return asyncio.run(_size(db)), None
    space = space_of(db)
    return space.whole, space.free


async def _size(url: PostgresUrl) -> int:
    async with open_reader(url) as reader:
        [row] = await reader.rows("SELECT pg_database_size(current_database()) AS bytes")
        return int(row["bytes"])


def _agreed(jobs: Sequence[EndedJob], days: int) -> bool:
    prompts, answers = sum(job.prompts for job in jobs), sum(job.answers for job in jobs)
    tell(
        f"{count(len(jobs), 'job')} that ended more than {count(days, 'day')} ago will go for good, with "
        f"{count(prompts, 'prompt')} and {count(answers, 'answer')}; and the documents that no other job needs.",
        hang=0,
    )
    return typer.confirm("Remove them?", err=True)


async def _prune(db: DatabasePlace, before: float, jobs: Sequence[EndedJob], dry_run: bool) -> Counter[str]:
    ticker = Ticker(QUIET_SECONDS)

    def show(gone: Counter[str]) -> None:
        ticker.show(f"{count(gone.total(), 'row')} {'found' if dry_run else 'removed'}")

    try:
        async with open_database(db, references=False) as database:
            return await prune(database, before, jobs, show, only_count=dry_run)
    finally:
        ticker.clear()


def _shrink(db: Path) -> bool:
    ticker, began = Ticker(QUIET_SECONDS), time.monotonic()
    try:
        return vacuum(db, lambda: ticker.show(f"writing it anew, for {time.monotonic() - began:.0f} s"))
    finally:
        ticker.clear()


def _show(gone: Counter[str], given: Pruning, size: int, free: int | None) -> None:
    went = [count(gone[kind], name) for kind, name in _NAMES.items() if gone[kind]]
    if not went:
        tell(f"Nothing is older than {count(given.days, 'day')} and no longer needed.")
    else:
        tell(f"{'Would be removed' if given.dry_run else 'Removed'}: {', '.join(went)}.")
    if free is None:
        tell(f"The database has {size_in_words(size)}; what is free of that, its server uses again.")
        return
    some = f"{size_in_words(free)} of that free" if free else "none of it free"
    hint = "" if given.vacuum or not free else " for what comes (--vacuum gives it back to the disk)"
    tell(f"The file has {size_in_words(size)}, {some}{hint}.")
