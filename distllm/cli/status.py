"""`distllm status`: what there is to show of jobs, gathered once for people and programs."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distllm.cli.screen import out, tell
from distllm.cli.status_view import (
    fact_lines,
    failure_lines,
    heading,
    jobs_table,
    worker_errors,
    workers_table,
)
from distllm.domain.errors import UsageError
from distllm.store.locks import coordinator_pid
from distllm.store.reads import Reader, open_reader

if TYPE_CHECKING:
    from distllm.insights import Reading

NEWEST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class JobNow:
    """Where one job stands. `live` is the coordinator's process, `eta` is in seconds; None where there is none.

    `reading` is what reading cost it, None where that is not known.
    """

    job: dict[str, Any]
    reading: "Reading | None"
    eta: float | None
    live: int | None
    unreadable: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    workers: list[dict[str, Any]]

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left to be done."""
        return self.job["finished_at"] is not None

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        more = {
            "reading": None if self.reading is None else self.reading.facts(),
            "eta_seconds": self.eta,
            "coordinator": self.live,
        }
        return self.job | more | {"not_read": self.unreadable, "last_failures": self.failures}


def show_jobs(db: Path, as_json: bool) -> int:
    """Print a line for each job."""
    return asyncio.run(_jobs(db, as_json))


def show_job(db: Path, job_id: int, as_json: bool) -> int:
    """Print where one job stands."""
    return asyncio.run(_job(db, job_id, as_json))


async def _jobs(db: Path, as_json: bool) -> int:
    async with open_reader(db) as reader:
        jobs = await reader.jobs()
    if as_json:
        out.print(json.dumps(jobs), soft_wrap=True)
    elif jobs:
        out.print(jobs_table(jobs))
    else:
        out.print("There is no job yet: `distllm submit` makes one.")
    return 0


async def _job(db: Path, job_id: int, as_json: bool) -> int:
    async with open_reader(db) as reader:
        now = await gather(reader, db, job_id)
    if as_json:
        out.print(json.dumps(now.facts()), soft_wrap=True)
    else:
        show(now)
    return 0


def show(now: JobNow) -> None:
    """Print all there is to say of a job."""
    facts = fact_lines(now.job, now.reading, now.eta, now.live)
    lines = [heading(now.job), *facts, *failure_lines(now.unreadable, now.failures)]
    for line in lines:
        tell(line.plain, hang=13)
    if now.workers:
        out.print(workers_table(now.workers))
        for line in worker_errors(now.workers):
            tell(line.plain, hang=13)


async def gather(reader: Reader, db: Path, job_id: int) -> JobNow:
    """Read where a job stands. Raises UsageError if there is none."""
    # The list of all jobs, which is looked at most, needs none of it.
    from distllm.insights import reading, time_left

    job = await reader.job(job_id)
    if job is None:
        raise UsageError(f"there is no job {job_id}: `distllm status` lists them")
    live = coordinator_pid(db)
    return JobNow(
        job,
        await reading(reader, job_id),
        await time_left(reader, job, time.time()) if live else None,
        live,
        await reader.unreadable(job_id),
        await reader.failures(job_id, NEWEST_FAILURES),
        await reader.workers(),
    )
