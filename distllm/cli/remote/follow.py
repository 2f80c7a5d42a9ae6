"""Following jobs that a service elsewhere works: with progress, to their end."""

import asyncio
from collections.abc import Callable, Sequence

from distllm.cli.remote.client import Record, Remote, connected
from distllm.cli.remote.jobs import all_jobs, job_at
from distllm.cli.screen import Ticker, out, print_json
from distllm.cli.status import show
from distllm.cli.watch import until_interrupted
from distllm.domain.words import count, number, span
from distllm.insights import JobNow

LOOK_EVERY_SECONDS = 1.0
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130

AsJson = Callable[[list[Record]], object]


async def follow(remote: Remote, jobs: Sequence[int], ticker: Ticker, as_json: AsJson | None) -> int:
    """Show how far jobs are until they have ended or are paused; print how they did, and return the exit code."""
    try:
        while True:
            states = [await job_at(remote, job_id) for job_id in jobs]
            if all(state.ended or state.job["state"] == "paused" for state in states):
                break
            ticker.show(_line(states))
            await asyncio.sleep(LOOK_EVERY_SECONDS)
    except asyncio.CancelledError:
        named = " ".join(map(str, jobs))
        ticker.clear()
        ticker.say(f"{remote.url} goes on with {named}; look at it with: distllm --server {remote.url} status")
        return EXIT_INTERRUPTED
    finally:
        ticker.clear()
    if as_json is not None:
        print_json(as_json([state.facts() for state in states]))
    else:
        for state in states:
            show(state)
    paused = [state.job["job_id"] for state in states if not state.ended]
    if paused:
        ticker.say(f"paused; go on with: distllm --server {remote.url} resume {' '.join(map(str, paused))}")
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if any(_is_incomplete(state) for state in states) else 0


def resume_jobs(url: str, jobs: Sequence[int], as_json: bool) -> int:
    """Have jobs gone on with, or follow all that are unfinished; return the exit code."""

    async def run() -> int:
        async with connected(url) as remote:
            return await _resume(remote, jobs, as_json)

    return until_interrupted(run())


async def _resume(remote: Remote, jobs: Sequence[int], as_json: bool) -> int:
    wanted = list(jobs)
    for job_id in jobs:
        if (await job_at(remote, job_id)).job["state"] == "paused":
            await remote.post(f"/jobs/{job_id}/resume")
    if not jobs:
        unfinished = [job for job in await all_jobs(remote) if job["finished_at"] is None]
        wanted = [job["job_id"] for job in unfinished if job["state"] != "paused"]
    if not wanted:
        print_json([]) if as_json else out.print("Nothing is unfinished.")
        return 0
    return await follow(remote, wanted, Ticker(), list if as_json else None)


def _line(states: Sequence[JobNow]) -> str:
    total, done = sum(state.job["total"] for state in states), sum(state.job["done"] for state in states)
    failed = sum(state.job["failed"] for state in states)
    line = f"{number(done)} of {count(total, 'prompt')} answered"
    if failed:
        line += f", {number(failed)} failed"
    resting = [state.rests.until for state in states if state.rests is not None]
    if resting:
        return f"{line}; waiting for the working hours, until {min(resting):%H:%M}"
    etas = [state.eta for state in states if not state.ended]
    known = [eta for eta in etas if eta is not None]
    return f"{line}, about {span(max(known))} left" if etas and len(known) == len(etas) else line


def _is_incomplete(state: JobNow) -> bool:
    return bool(state.job["failed"] + state.job["cancelled"] or state.unreadable)
