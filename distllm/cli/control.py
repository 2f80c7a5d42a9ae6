"""`distllm pause`, `cancel` and `retry`: from any process, also while another works the job."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from distllm.cli.screen import Ticker, out, print_json, safe
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.errors import NoJobError
from distllm.domain.places import DatabasePlace
from distllm.domain.words import count
from distllm.orders import OnMoved, Record, order_cancel, order_pause, order_retry, order_retry_truncated
from distllm.store.database import Database, open_database
from distllm.store.reads import open_reader

_now = Clock().now


def pause_job(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    """Lease nothing more of a job; what is in flight ends."""
    return asyncio.run(_pause(db, job_id, as_json))


def cancel_job(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    """End a job now; what is answered is kept."""
    return asyncio.run(_cancel(db, job_id, as_json))


def retry_job(db: DatabasePlace, config: Path | None, job_id: int, *, truncated: bool, as_json: bool) -> int:
    """Put what failed back to pending, or what was cut."""
    if truncated:
        return asyncio.run(_retry_truncated(db, Config.load(config), job_id, as_json))
    return asyncio.run(_retry(db, job_id, as_json))


async def _pause(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    async with _database(db, job_id) as database:
        told = await order_pause(database, job_id, _now())
    return say_paused(told, as_json)


def say_paused(told: Record, as_json: bool) -> int:
    """Print what came of a pause; return the exit code."""
    job_id = told["job_id"]
    if as_json:
        print_json(told)
    elif told["changed"]:
        ending = f"; what is in flight ends ({told['in_flight']})" if told["in_flight"] else ""
        out.print(f"Job {job_id} is paused{ending}. Go on with: distllm resume {job_id}")
    else:
        out.print(f"Job {job_id} is paused already. Go on with: distllm resume {job_id}")
    return 0


async def _cancel(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    async with _database(db, job_id) as database:
        with _moving("cancelled") as on_moved:
            told = await order_cancel(database, job_id, _now(), on_moved)
    return say_cancelled(told, as_json)


def say_cancelled(told: Record, as_json: bool) -> int:
    """Print what came of a cancel; return the exit code."""
    if as_json:
        print_json(told)
    else:
        kept = count(told["done"], "answer")
        out.print(safe(f"Job {told['job_id']} is cancelled: {kept} kept, {told['cancelled']:,} not asked"))
    return 0


async def _retry(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    async with _database(db, job_id) as database:
        with _moving("put back") as on_moved:
            told = await order_retry(database, job_id, _now(), on_moved)
    return say_retried(told, as_json)


def say_retried(told: Record, as_json: bool) -> int:
    """Print what came of a retry; return the exit code."""
    if as_json:
        print_json(told)
    elif told["again"]:
        _say_waiting(told)
    else:
        out.print(f"Job {told['job_id']} has no failed prompts.")
    return 0


async def _retry_truncated(db: DatabasePlace, config: Config, job_id: int, as_json: bool) -> int:
    async with _database(db, job_id) as database:
        told = await order_retry_truncated(database, job_id, config.aliases(), _now())
    return say_retried_truncated(told, as_json)


def say_retried_truncated(told: Record, as_json: bool) -> int:
    """Print what came of a retry of what was cut; return the exit code."""
    if as_json:
        print_json(told)
        return 0
    if told["left"]:
        text = "kept as it is" if told["left"] == 1 else "kept as they are"
        out.print(f"{count(told['left'], 'answer')} {text}: no context window here has room for a longer one.")
    if told["again"]:
        _say_waiting(told)
    elif not told["left"]:
        out.print(f"Job {told['job_id']} has no answers that were cut at their token limit.")
    return 0


@asynccontextmanager
async def _database(db: DatabasePlace, job_id: int) -> AsyncIterator[Database]:
    """A database that exists and has the job, opened for writing."""
    async with open_reader(db) as reader:
        if await reader.job(job_id) is None:
            raise NoJobError(job_id)
    async with open_database(db) as database:
        yield database


@contextmanager
def _moving(done: str) -> Iterator[OnMoved]:
    """Shows how many prompts have been moved."""
    ticker = Ticker()
    try:
        yield lambda moved: ticker.show(f"{count(moved, 'prompt')} {done}")
    finally:
        ticker.clear()


def _say_waiting(told: Record) -> None:
    again, job_id, live = told["again"], told["job_id"], told["coordinator"]
    what = f"{count(again, 'prompt')} of job {job_id} {'waits' if again == 1 else 'wait'} to be asked again"
    how = f"process {live} works on it" if live else f"run: distllm resume {job_id}"
    out.print(f"{what}; {how}")
