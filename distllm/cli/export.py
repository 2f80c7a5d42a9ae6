"""`distllm export`."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from distllm.cli.screen import Ticker, err, let_go, out, safe
from distllm.domain.errors import UsageError
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.domain.words import count, number
from distllm.export.csv import LONGEST_IN_EXCEL
from distllm.export.formats import Format, format_of, written
from distllm.export.source import Source, open_source
from distllm.export.target import print_to, save
from distllm.store.reads import open_reader

QUIET_SECONDS = 2.0
EXIT_INTERRUPTED = 130

_OF_THE_DATABASE = ("", "-wal", "-shm", "-journal", "-writer", "-coordinator")


def export_job(db: DatabasePlace, job_id: int, form: Format | None, wide: bool, output: Path | None) -> int:
    """Write a job's answers to a file or to standard output."""
    if output == Path("-"):
        output = None
    wanted = _format(form, output)
    if output is None and wanted is Format.PARQUET and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal: give it a file with -o FILE")
    if output is not None:
        _not_the_database(db, output)
    try:
        return asyncio.run(_export(db, job_id, wanted, wide, output))
    except BrokenPipeError:
        return let_go()
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print(safe(f"interrupted; {output or 'nothing'} {'is as it was' if output else 'more is written'}"))
        return EXIT_INTERRUPTED


def _stop_on_signals() -> None:
    """A closed terminal and a polite kill end it as Ctrl-C does, which leaves nothing half written behind."""
    task = asyncio.current_task()
    assert task is not None
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is signal.SIG_IGN:
            # As nohup wants it.
            continue
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)


def _format(form: Format | None, output: Path | None) -> Format:
    wanted = form or (format_of(output) if output else None)
    if wanted is None:
        where = f"{output.name!r} does not say a format" if output else "no format is given"
        raise UsageError(f"{where}: add --format with one of {', '.join(Format)}")
    return wanted


def _not_the_database(db: DatabasePlace, output: Path) -> None:
    """The database is one wrong word away from being replaced by a list of its answers."""
    if isinstance(db, PostgresUrl):
        return
    target, base = output.resolve(), db.resolve()
    if target.parent == base.parent and target.name in {base.name + suffix for suffix in _OF_THE_DATABASE}:
        raise UsageError(f"{output} belongs to the database: name another file")


async def _export(db: DatabasePlace, job_id: int, form: Format, wide: bool, output: Path | None) -> int:
    ticker = Ticker()
    if output is not None:
        _stop_on_signals()
    async with open_reader(db) as reader:
        source = await open_source(reader, job_id, wide)
        if output is not None or not sys.stdout.isatty():
            source.on_page = _progress(ticker, source.job["files"] or source.job["total"])
        pieces = written(source, form, wide)
        try:
            if output is not None:
                await save(pieces, output)
            elif sys.stdout.isatty():
                await print_to(_for_a_terminal(pieces), sys.stdout.buffer)
            else:
                await print_to(pieces, sys.stdout.buffer)
        finally:
            ticker.clear()
    _report(source, form, output)
    return 0


def _progress(ticker: Ticker, total: int) -> Callable[[int], None]:
    """Tells how far it is once that has taken so long that someone may wonder."""
    began = time.monotonic()

    def show(seen: int) -> None:
        if time.monotonic() - began >= QUIET_SECONDS:
            ticker.show(f"{number(seen)} of {number(total)} written")

    return show


async def _for_a_terminal(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What a terminal can be shown: strangers' words without the characters that it obeys."""
    async for piece in pieces:
        yield safe(piece.decode().removeprefix("\ufeff")).encode()


def _report(source: Source, form: Format, output: Path | None) -> None:
    job, states = source.job["job_id"], source.states
    if output is not None:
        # What is no file may be standard output by another name.
        said = out if output.is_file() else err
        said.print(safe(f"{count(states['done'], 'answer')} of job {job} written to {output}"), soft_wrap=True)
    notes = []
    if not source.job["submitted"]:
        notes.append(f"job {job} is still being built: files that are not read yet are missing")
    if left := states["pending"] + states["leased"]:
        notes.append(f"{count(left, 'answer')} still missing: job {job} is {source.job['state']}")
    report = form in (Format.MARKDOWN, Format.HTML)
    if states["failed"]:
        listed = "listed at the end" if report else f'distllm query "select * from failures where job_id = {job}"'
        notes.append(f"{count(states['failed'], 'prompt')} failed: {listed}")
    if states["cancelled"]:
        notes.append(f"{count(states['cancelled'], 'prompt')} cancelled")
    if source.job["unreadable"]:
        listed = "listed at the end" if report else f"distllm status {job}"
        notes.append(f"{count(source.job['unreadable'], 'file')} could not be read: {listed}")
    if source.too_long_for_excel:
        notes.append(
            f"{count(source.too_long_for_excel, 'cell')} longer than the {LONGEST_IN_EXCEL:,} characters that Excel "
            "keeps: --format jsonl or html for all of it elsewhere"
        )
    for note in notes:
        err.print(safe(note), soft_wrap=True)
