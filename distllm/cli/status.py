"""`distllm status`: what there is to show of jobs, gathered once for people and programs."""

import asyncio
import json
import time
from typing import TYPE_CHECKING

from distllm.cli.screen import out, tell
from distllm.cli.status_view import (
    fact_lines,
    failure_lines,
    heading,
    jobs_table,
    rest_line,
    worker_errors,
    workers_table,
)
from distllm.domain.places import DatabasePlace
from distllm.store.reads import Reader, open_reader
from distllm.store.served import served

if TYPE_CHECKING:
    from distllm.insights import JobNow, Rest


def show_jobs(db: DatabasePlace, as_json: bool) -> int:
    """Print a line for each job."""
    return asyncio.run(_jobs(db, as_json))


def show_job(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    """Print where one job stands."""
    return asyncio.run(_job(db, job_id, as_json))


async def _jobs(db: DatabasePlace, as_json: bool) -> int:
    async with open_reader(db) as reader:
        jobs = await reader.jobs()
        # Without a service nobody has hours, and the list costs no more than it must.
        waits = served(db) is not None and any(job["finished_at"] is None for job in jobs)
        rest = await rest_of(reader) if waits and not as_json else None
    if as_json:
        out.print(json.dumps(jobs), soft_wrap=True)
    elif jobs:
        out.print(jobs_table(jobs))
        if rest is not None:
            tell(f"The coordinator is {rest_line(rest)}.", hang=0)
    else:
        out.print("There is no job yet: `distllm submit` makes one.")
    return 0


async def rest_of(reader: Reader) -> "Rest | None":
    """Whether the coordinator rests now."""
    from distllm.insights import resting

    return await resting(reader, time.time())


async def _job(db: DatabasePlace, job_id: int, as_json: bool) -> int:
    async with open_reader(db) as reader:
        now = await gather(reader, job_id)
    if as_json:
        out.print(json.dumps(now.facts()), soft_wrap=True)
    else:
        show(now)
    return 0


def show(now: "JobNow") -> None:
    """Print all there is to say of a job."""
    facts = fact_lines(now)
    lines = [heading(now.job), *facts, *failure_lines(now.unreadable, now.failures)]
    for line in lines:
        tell(line.plain, hang=13)
    if now.workers:
        out.print(workers_table(now.workers))
        for line in worker_errors(now.workers):
            tell(line.plain, hang=13)


async def gather(reader: Reader, job_id: int) -> "JobNow":
    """Read where a job stands. Raises UsageError if there is none."""
    # The list of all jobs, which is looked at most, needs none of it.
    from distllm.insights import job_now

    return await job_now(reader, job_id, time.time())
