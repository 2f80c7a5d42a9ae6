"""What people order about a job: pause it, go on with it, cancel it, ask again; from wherever they order it.

Each returns the facts that programs are told, and raises NoJobError where there is no such job, EndedError
where it is too late.
"""

from collections.abc import Callable, Sequence
from typing import Any

from distllm.domain.errors import DistllmError, NoJobError
from distllm.store.control import Room, cancel_some, go_on, pause, request_cancel, retry_some, retry_truncated
from distllm.store.database import Database
from distllm.store.tx import Tx

Record = dict[str, Any]

OnMoved = Callable[[int], None]
"""Told how many prompts have been moved so far."""


class EndedError(DistllmError):
    """The job has ended, so that this can no longer be done to it."""


async def order_pause(database: Database, job_id: int, now: float) -> Record:
    """Lease nothing more of a job: job_id, state, changed, in_flight."""
    job = await _job(database, job_id)
    changed = await database.write(lambda tx: pause(tx, job_id, now))
    if not changed:
        job = await _job(database, job_id)
        if job["state"] != "paused":
            raise EndedError(f"job {job_id} has ended: it is {job['state']}")
    return {"job_id": job_id, "state": "paused", "changed": changed, "in_flight": job["leased"]}


async def order_resume(database: Database, job_id: int) -> Record:
    """Go on with a job that is paused: job_id, state, changed."""
    job = await _job(database, job_id)
    if job["finished_at"] is not None or job["cancelling"]:
        raise EndedError(f"job {job_id} has ended: it is {job['state']}")
    changed = bool(await database.write(lambda tx: go_on(tx, [job_id])))
    return {"job_id": job_id, "state": (await _job(database, job_id))["state"], "changed": changed}


async def order_cancel(database: Database, job_id: int, now: float, on_moved: OnMoved) -> Record:
    """End a job now, whose answers are kept: job_id, state, changed, done, failed, cancelled."""
    job = await _job(database, job_id)
    changed = await database.write(lambda tx: request_cancel(tx, job_id, now))
    if not changed and job["state"] != "cancelled" and job["finished_at"] is not None:
        raise EndedError(f"job {job_id} has ended: it is {job['state']}")
    await _in_steps(database, lambda tx: cancel_some(tx, job_id, now), on_moved)
    job = await _job(database, job_id)
    return {"job_id": job_id, "state": job["state"], "changed": changed} | {
        name: job[name] for name in ("done", "failed", "cancelled")
    }


async def order_retry(database: Database, job_id: int, now: float, on_moved: OnMoved) -> Record:
    """Put what failed back to pending: job_id, again, left, coordinator."""
    _refuse_cancelled(await _job(database, job_id))
    again = await _in_steps(database, lambda tx: retry_some(tx, job_id, now), on_moved)
    return await _retried(database, job_id, Room(again, 0))


async def order_retry_truncated(
    database: Database, job_id: int, aliases: Sequence[Sequence[str]], now: float
) -> Record:
    """Put the answers that were cut back to pending, with more room where there is some: as `order_retry`."""
    job = await _job(database, job_id)
    _refuse_cancelled(job)
    names = next((group for group in aliases if job["model"] in group), ())
    return await _retried(database, job_id, await database.write(lambda tx: retry_truncated(tx, job_id, names, now)))


async def _job(database: Database, job_id: int) -> Record:
    job = await database.read.job(job_id)
    if job is None:
        raise NoJobError(job_id)
    return job


async def _in_steps(database: Database, step: Callable[[Tx], int], on_moved: OnMoved) -> int:
    """Take short transactions until one finds nothing more to do; return how many prompts they moved."""
    moved = 0
    while some := await database.write(step):
        moved += some
        on_moved(moved)
    return moved


def _refuse_cancelled(job: Record) -> None:
    if job["cancelling"]:
        raise EndedError(f"job {job['job_id']} was cancelled: submit it again; what is answered is not asked anew")


async def _retried(database: Database, job_id: int, room: Room) -> Record:
    live = await database.read.coordinator()
    return {"job_id": job_id, "again": room.again, "left": room.left, "coordinator": live}
