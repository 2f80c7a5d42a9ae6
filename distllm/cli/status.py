"""`distllm status`."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from distllm.cli.screen import count, failed_prompt, number, out, safe, span, table
from distllm.domain.errors import UsageError
from distllm.insights import progress
from distllm.store.locks import coordinator_pid
from distllm.store.reads import open_reader

_NEWEST_FAILURES = 5


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
        return 0
    rows = [
        (
            job["job_id"],
            job["job"],
            job["state"] if job["submitted"] else "being built",
            f"{number(job['done'])}/{number(job['total'])}",
            number(job["failed"]),
            job["model"],
            job["started_at"],
        )
        for job in jobs
    ]
    columns = ("job", "name", "state", "answered", "failed", "model", "started")
    out.print(table(columns, rows, numbers=("job", "answered", "failed")))
    return 0


async def _job(db: Path, job_id: int, as_json: bool) -> int:
    async with open_reader(db) as reader:
        job = await reader.job(job_id)
        if job is None:
            raise UsageError(f"there is no job {job_id}: `distllm status` lists them")
        now = await progress(reader, job_id, time.time())
        unreadable = await reader.unreadable(job_id)
        failures = await reader.failures(job_id, _NEWEST_FAILURES)
        workers = await reader.workers()
    live = coordinator_pid(db)
    eta = now.eta if now is not None and live else None
    if as_json:
        facts = job | {"eta_seconds": eta, "coordinator": live, "not_read": unreadable, "last_failures": failures}
        out.print(json.dumps(facts), soft_wrap=True)
        return 0
    out.print(safe(f"Job {job_id}, {job['job']}: {job['state'] if job['submitted'] else 'being built'}"))
    for name, value in _facts(job, eta, live):
        out.print(safe(f"  {name:<12} {value}"), soft_wrap=True)
    for row in unreadable:
        out.print(safe(f"  {'not read':<12} {row['document']}: {row['problem']}"), soft_wrap=True)
    for row in failures:
        out.print(safe(f"  {'failed':<12} {failed_prompt(row)}: {row['error']}"), soft_wrap=True)
    if workers:
        columns = ("worker", "type", "answers", "failed", "seconds/answer", "answers/min", "tokens/s", "last error")
        out.print(table(columns, [_worker(row) for row in workers], numbers=columns[2:7]))
    return 0


def _facts(job: dict[str, Any], eta: float | None, live: int | None) -> list[tuple[str, str]]:
    counts = ", ".join(
        f"{number(job[state])} {state}" for state in ("pending", "leased", "failed", "cancelled") if job[state]
    )
    facts = [("answered", f"{number(job['done'])} of {number(job['total'])}" + (f" ({counts})" if counts else ""))]
    if job["files"]:
        read = job["files"] - job["unreadable"] - job["copies"]
        facts.append(("documents", f"{number(read)} read of {number(job['files'])} files"))
    facts.append(("model", job["model"]))
    if job["prompt_tokens"]:
        facts.append(
            (
                "tokens",
                f"{number(job['prompt_tokens'])} asked about, {number(job['cached_tokens'])} of them found cached, "
                f"{number(job['completion_tokens'])} written",
            )
        )
    if job["reused"]:
        facts.append(("reused", f"{count(job['reused'], 'answer')} of earlier jobs, not asked again"))
    if job["truncated"]:
        facts.append(("cut", f"{count(job['truncated'], 'answer')} at the token limit"))
    if job["unproven"]:
        facts.append(("unproven", f"{count(job['unproven'], 'answer')}: not certain that all that was sent was read"))
    if job["started_at"]:
        facts.append(("started", job["started_at"]))
    if job["finished_at"]:
        took = span(job["ended"] - job["began"]) if job["began"] else ""
        facts.append(("finished", f"{job['finished_at']}{f', after {took}' if took else ''}"))
    elif not job["submitted"] and not job["files"]:
        facts.append(("left", "its program goes on with it when it makes the same batch again"))
    elif live is None:
        facts.append(("coordinator", f"none is live; go on with: distllm resume {job['job_id']}"))
    else:
        facts.append(("coordinator", f"process {live}"))
        facts.append(("left", f"about {span(eta)}" if eta is not None else "not known yet"))
    return facts


def _worker(row: dict[str, Any]) -> tuple[Any, ...]:
    def rounded(value: float | None, factor: float = 1.0) -> str | None:
        return None if value is None else f"{value * factor:.1f}"

    return (
        row["worker"],
        row["type"],
        number(row["succeeded"]),
        number(row["failed"]),
        rounded(row["avg_seconds"]),
        rounded(row["requests_per_second"], 60),
        rounded(row["tokens_per_second"]),
        row["error"],
    )
