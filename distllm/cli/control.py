"""`distllm pause`, `cancel` and `retry`: from any process, also while another works the job."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from distllm.cli.screen import Ticker, count, out, print_json, safe
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.errors import DistllmError, UsageError
from distllm.store.control import Room, cancel_some, pause, request_cancel, retry_some, retry_truncated
from distllm.store.database import Database, open_database
from distllm.store.locks import coordinator_pid
from distllm.store.reads import open_reader
from distllm.store.sqlite import Tx

_now = Clock().now


def pause_job(db: Path, job_id: int, as_json: bool) -> int:
    """Lease nothing more of a job; what is in flight ends."""
    return asyncio.run(_pause(db, job_id, as_json))


def cancel_job(db: Path, job_id: int, as_json: bool) -> int:
    """End a job now; what is answered is kept."""
    return asyncio.run(_cancel(db, job_id, as_json))


def retry_job(db: Path, config: Path | None, job_id: int, *, truncated: bool, as_json: bool) -> int:
    """Put what failed back to pending, or what was cut."""
    if truncated:
        return asyncio.run(_retry_truncated(db, Config.load(config), job_id, as_json))
    return asyncio.run(_retry(db, job_id, as_json))


async def _pause(db: Path, job_id: int, as_json: bool) -> int:
    async with _job(db, job_id) as (database, job):
        paused = await database.write(lambda tx: pause(tx, job_id, _now()))
        if not paused:
            job = await database.read.job(job_id) or job
            _refuse_unless(job, "paused")
    if as_json:
        print_json({"job_id": job_id, "state": "paused", "changed": paused, "in_flight": job["leased"]})
    elif paused:
        ending = f"; what is in flight ends ({job['leased']})" if job["leased"] else ""
        out.print(f"Job {job_id} is paused{ending}. Go on with: distllm resume {job_id}")
    else:
        out.print(f"Job {job_id} is paused already. Go on with: distllm resume {job_id}")
    return 0


async def _cancel(db: Path, job_id: int, as_json: bool) -> int:
    async with _job(db, job_id) as (database, job):
        changed = await database.write(lambda tx: request_cancel(tx, job_id, _now()))
        if not changed:
            _refuse_unless(job, "cancelled", unended=True)
        await _in_steps(database, lambda tx: cancel_some(tx, job_id, _now()), "cancelled")
        job = await database.read.job(job_id) or job
    if as_json:
        facts = {"done": job["done"], "failed": job["failed"], "cancelled": job["cancelled"]}
        print_json({"job_id": job_id, "state": job["state"], "changed": changed} | facts)
    else:
        out.print(
            safe(f"Job {job_id} is cancelled: {count(job['done'], 'answer')} kept, {job['cancelled']:,} not asked")
        )
    return 0


async def _retry(db: Path, job_id: int, as_json: bool) -> int:
    async with _job(db, job_id) as (database, job):
        _refuse_cancelled(job)
        again = await _in_steps(database, lambda tx: retry_some(tx, job_id, _now()), "put back")
    if as_json:
        _print_retried(db, job_id, Room(again, 0))
    elif again:
        _say_waiting(db, job_id, again)
    else:
        out.print(f"Job {job_id} has no failed prompts.")
    return 0


async def _retry_truncated(db: Path, config: Config, job_id: int, as_json: bool) -> int:
    async with _job(db, job_id) as (database, job):
        _refuse_cancelled(job)
        names = next((group for group in config.aliases() if job["model"] in group), ())
        room = await database.write(lambda tx: retry_truncated(tx, job_id, names, _now()))
    if as_json:
        _print_retried(db, job_id, room)
        return 0
    if room.left:
        text = "kept as it is" if room.left == 1 else "kept as they are"
        out.print(f"{count(room.left, 'answer')} {text}: no context window here has room for a longer one.")
    if room.again:
        _say_waiting(db, job_id, room.again)
    elif not room.left:
        out.print(f"Job {job_id} has no answers that were cut at their token limit.")
    return 0


def _print_retried(db: Path, job_id: int, room: Room) -> None:
    print_json({"job_id": job_id, "again": room.again, "left": room.left, "coordinator": coordinator_pid(db)})


@asynccontextmanager
async def _job(db: Path, job_id: int) -> AsyncIterator[tuple[Database, dict[str, Any]]]:
    """A database that exists, opened for writing, and one of its jobs."""
    async with open_reader(db) as reader:
        job = await reader.job(job_id)
    if job is None:
        raise UsageError(f"there is no job {job_id}: `distllm status` lists them")
    async with open_database(db) as database:
        yield database, job


async def _in_steps(database: Database, step: Callable[[Tx], int], done: str) -> int:
    """Take short transactions until one finds nothing more to do; return how many prompts they moved."""
    ticker, moved = Ticker(), 0
    try:
        while some := await database.write(step):
            moved += some
            ticker.show(f"{count(moved, 'prompt')} {done}")
    finally:
        ticker.clear()
    return moved


def _refuse_unless(job: dict[str, Any], state: str, *, unended: bool = False) -> None:
    if job["state"] != state and not (unended and job["finished_at"] is None):
        raise DistllmError(f"job {job['job_id']} has ended: it is {job['state']}")


def _refuse_cancelled(job: dict[str, Any]) -> None:
    if job["cancelling"]:
        raise DistllmError(f"job {job['job_id']} was cancelled: submit it again; what is answered is not asked anew")


def _say_waiting(db: Path, job_id: int, again: int) -> None:
    live = coordinator_pid(db)
    what = f"{count(again, 'prompt')} of job {job_id} {'waits' if again == 1 else 'wait'} to be asked again"
    how = f"process {live} works on it" if live else f"run: distllm resume {job_id}"
    out.print(f"{what}; {how}")
