"""`status`, `results`, `pause`, `cancel`, `retry` and `workers list` of a service elsewhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from itertools import groupby

from distllm.cli.control import say_cancelled, say_paused, say_retried, say_retried_truncated
from distllm.cli.remote.client import Record, Remote, connected
from distllm.cli.results import show_own, show_paper
from distllm.cli.screen import out, print_json
from distllm.cli.status import show
from distllm.cli.status_view import jobs_table
from distllm.cli.watch import JobsNow, keep_showing_job, keep_showing_jobs, until_interrupted
from distllm.cli.workers import say_workers
from distllm.domain.errors import UsageError
from distllm.insights import JobNow, OwnPrompt, Paper, Rest

PAGE = 500
_ANSWER = ("prompt", "answer", "model", "worker", "finish_reason", "proof", "parts", "seconds", "state", "error")


def show_jobs(url: str, as_json: bool) -> int:
    """Print a line for each job."""

    async def look(remote: Remote) -> int:
        jobs = await all_jobs(remote)
        if as_json:
            print_json(jobs)
        elif jobs:
            out.print(jobs_table(jobs))
        else:
            out.print("There is no job yet: `distllm submit` makes one.")
        return 0

    return _with(url, look)


def show_job(url: str, job_id: int, as_json: bool) -> int:
    """Print where one job stands."""

    async def look(remote: Remote) -> int:
        now = await job_at(remote, job_id)
        print_json(now.facts()) if as_json else show(now)
        return 0

    return _with(url, look)


def watch_jobs(url: str, as_json: bool) -> int:
    """Show all jobs until interrupted."""

    async def watch() -> int:
        async with connected(url) as remote:

            async def look() -> JobsNow:
                service = await remote.get("")
                until = service["rests_until"]
                rest = None if until is None else Rest(service["hours"], datetime.fromisoformat(until))
                return await all_jobs(remote), service["coordinator"], rest

            return await keep_showing_jobs(_unchanged, look, as_json)

    return until_interrupted(watch())


def watch_job(url: str, job_id: int, as_json: bool) -> int:
    """Show one job until it has ended."""

    async def watch() -> int:
        async with connected(url) as remote:
            return await keep_showing_job(_unchanged, lambda: job_at(remote, job_id), as_json)

    return until_interrupted(watch())


def show_results(url: str, job_id: int, document: str | None, prompt: str | None, as_json: bool) -> int:
    """Print the answers of a job, document by document."""

    async def read(remote: Remote) -> int:
        seen = 0
        async for page in _pages(remote, job_id, document, prompt):
            for row in page:
                seen += 1
                if as_json:
                    facts = {name: row[name] for name in ("document", "title", *_ANSWER)}
                    out.print(json.dumps(facts), soft_wrap=True)
            if not as_json:
                _show(page, seen - len(page))
        if not seen and (document is not None or prompt is not None):
            what = " and ".join(repr(name) for name in (document, prompt) if name is not None)
            raise UsageError(f"job {job_id} has nothing about {what}: `distllm results {job_id}` shows all")
        return 0

    return _with(url, read)


def _show(page: list[Record], before: int) -> None:
    for (document, title), rows in groupby(page, lambda row: (row["document"], row["title"])):
        answers = list(rows)
        if document is not None:
            show_paper(Paper(document, title, None, answers))
            continue
        for number, row in enumerate(answers, before + 1):
            show_own(OwnPrompt(number, "a prompt of the batch", row))


def pause_job(url: str, job_id: int, as_json: bool) -> int:
    """Lease nothing more of a job."""
    return _order(url, f"/jobs/{job_id}/pause", None, lambda told: say_paused(told, as_json))


def cancel_job(url: str, job_id: int, as_json: bool) -> int:
    """End a job now."""
    return _order(url, f"/jobs/{job_id}/cancel", None, lambda told: say_cancelled(told, as_json))


def retry_job(url: str, job_id: int, *, truncated: bool, as_json: bool) -> int:
    """Put what failed back to pending, or what was cut."""
    say = say_retried_truncated if truncated else say_retried
    return _order(url, f"/jobs/{job_id}/retry", {"truncated": truncated}, lambda told: say(told, as_json))


def list_workers(url: str, as_json: bool) -> int:
    """Print the workers of the service."""

    async def look(remote: Remote) -> int:
        return say_workers((await remote.get("/workers"))["workers"], as_json)

    return _with(url, look)


async def all_jobs(remote: Remote) -> list[Record]:
    """All jobs, oldest first."""
    jobs: list[Record] = []
    before: int | None = None
    while True:
        page = await remote.get("/jobs", before=before, limit=PAGE)
        jobs += page["jobs"]
        before = page["next"]
        if before is None:
            return jobs[::-1]


async def job_at(remote: Remote, job_id: int) -> JobNow:
    """Where a job stands."""
    return JobNow.of(await remote.get(f"/jobs/{job_id}"))


async def _pages(remote: Remote, job_id: int, document: str | None, prompt: str | None) -> AsyncIterator[list[Record]]:
    """The prompts of a job, a page of whole documents at a time."""
    cursor: str | None = None
    held: list[Record] = []
    while True:
        page = await remote.get(f"/jobs/{job_id}/results", cursor=cursor, limit=PAGE, document=document, prompt=prompt)
        held += page["results"]
        cursor = page["next"]
        if cursor is None:
            yield held
            return
        last = held[-1]["document"]
        whole = [row for row in held if row["document"] != last or last is None]
        held = held[len(whole) :]
        yield whole


async def _unchanged() -> int:
    """What is far away is looked at now and then, whether it has changed or not."""
    return 0


def _order(url: str, path: str, body: object, say: Callable[[Record], int]) -> int:
    async def order(remote: Remote) -> int:
        return say(await remote.post(path, body))

    return _with(url, order)


def _with(url: str, work: Callable[[Remote], Awaitable[int]]) -> int:
    async def run() -> int:
        async with connected(url) as remote:
            return await work(remote)

    return asyncio.run(run())
