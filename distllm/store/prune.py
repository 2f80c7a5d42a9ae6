"""Making a database smaller that has grown for long, in steps between which others have their turn."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from distllm.store.database import Database
from distllm.store.removal import EndedJob, remove_some
from distllm.store.sweeps import DOCUMENTS, DOOMED_ATTEMPTS, OLD_ATTEMPTS, READINGS, SAMPLES, Step, Sweep, sweep_some
from distllm.store.tx import Tx

KINDS = ("jobs", "prompts", "results", "attempts", "worker_metrics", "readings", "documents")
"""The tables whose rows are counted; smaller ones go with them."""

T = TypeVar("T")
OnPruned = Callable[[Counter[str]], None]
"""Told after each step how many rows have gone so far, by table."""


async def prune(
    database: Database, before: float, jobs: Sequence[EndedJob], on_pruned: OnPruned, *, only_count: bool = False
) -> Counter[str]:
    """Remove what nobody reads of what ended before a time, and `jobs` whole; or `only_count` the rows.

    Takes a database opened without looking after references. Killed at any moment it leaves a sound one, and
    called again it goes on.
    """
    gone = Counter(dict.fromkeys(KINDS, 0))
    doomed = [job.job_id for job in jobs]
    if only_count:
        gone.update(jobs=len(jobs), prompts=sum(job.prompts for job in jobs), results=sum(job.answers for job in jobs))
        await _sweep(database, DOOMED_ATTEMPTS, before, doomed, gone, on_pruned, only_count=True)
    else:
        for job_id in doomed:
            await _remove(database, job_id, before, gone, on_pruned)
    for sweep in (OLD_ATTEMPTS, SAMPLES, READINGS, DOCUMENTS):
        await _sweep(database, sweep, before, doomed if only_count else (), gone, on_pruned, only_count=only_count)
    return gone


async def _remove(database: Database, job_id: int, before: float, gone: Counter[str], on_pruned: OnPruned) -> None:
    while (went := await _in_turn(database, lambda tx: remove_some(tx, job_id, before))) is not None:
        gone.update(went)
        on_pruned(gone)


async def _sweep(
    database: Database,
    sweep: Sweep,
    before: float,
    doomed: Sequence[int],
    gone: Counter[str],
    on_pruned: OnPruned,
    *,
    only_count: bool,
) -> None:
    after: int | None = 0
    while after is not None:

        def step(tx: Tx, first: int = after) -> Step:
            return sweep_some(tx, sweep, first, before, doomed, only_count=only_count)

        done = await _in_turn(database, step)
        gone[sweep.name] += done.going
        on_pruned(gone)
        after = done.after


async def _in_turn(database: Database, step: Callable[[Tx], T]) -> T:
    """Take one step, then leave the database to others for as long as it took."""
    began = time.monotonic()
    value = await database.write(step)
    await asyncio.sleep(time.monotonic() - began)
    return value
