"""A whole job is pruned, while a coordinator works another one of the same database beside it."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.large_job import submit
from benchmarks.queue_turns import Turn, writing_beside
from distllm.domain.places import DatabasePlace
from distllm.store.control import cancel_some, request_cancel
from distllm.store.database import open_database
from distllm.store.prune import prune
from distllm.store.removal import ended_jobs

OTHER = "another model"
JOB = 1
"""The number of the job that is pruned."""


class Pruned(NamedTuple):
    """How many prompts went in how many seconds, and the turns that were taken meanwhile."""

    prompts: int
    seconds: float
    turns: list[Turn]


def prune_beside(place: DatabasePlace, papers: Sequence[Path], questions: int, pause: float) -> Pruned:
    """Cancel and prune the first job at `place`; another one, about `papers`, has a turn every `pause` seconds."""
    submit(place, papers, questions, OTHER)
    asyncio.run(_cancel(place))
    with writing_beside(place, OTHER, pause) as turns:
        began = time.perf_counter()
        prompts = asyncio.run(_prune(place))
        seconds = time.perf_counter() - began
    return Pruned(prompts, seconds, turns)


async def _cancel(place: DatabasePlace) -> None:
    now = time.time()
    async with open_database(place) as database:
        await database.write(lambda tx: request_cancel(tx, JOB, now))
        while await database.write(lambda tx: cancel_some(tx, JOB, now)):
            pass


async def _prune(place: DatabasePlace) -> int:
    before = time.time() + 1
    async with open_database(place, references=False) as database:
        jobs = await ended_jobs(database.read, before)
        assert [job.job_id for job in jobs] == [JOB], jobs
        gone = await prune(database, before, jobs, lambda gone: None)
    return gone["prompts"]
