"""Run jobs in the foreground, with progress: what `submit` and `resume` share."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from distllm.cli.screen import Ticker, print_json, tell
from distllm.cli.status import gather
from distllm.compose.fleet import Fleet
from distllm.compose.run import Run
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.events import Answered, Event, Leased, Noticed, TriedInVain, WorkerChanged
from distllm.domain.words import count, failed_prompt, number, span
from distllm.insights import NEWEST_FAILURES, Progress, Rest, progress, read_once, reading, resting
from distllm.store.database import Database
from distllm.store.reads import Reader, Record
from distllm.store.tx import StoreError

EVERY_SECONDS = 0.5
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130


AsJson = Callable[[list[dict[str, Any]]], object]
"""What is printed as JSON of the facts of some jobs, each as `status JOB --json` has them."""


async def work(
    database: Database,
    config: Config,
    fleet: Fleet,
    jobs: Collection[int],
    ticker: Ticker,
    as_json: AsJson | None = None,
) -> int:
    """Work until `jobs` have ended; print how they did, and return the exit code."""
    left = {job["job_id"] for job in await database.read.unfinished()}
    if left.isdisjoint(jobs):
        # Everything was answered already: nobody need be asked, nor waited for.
        return await _report(database, jobs, ticker, as_json, interrupted=False)
    run = Run(database, config, fleet, lambda event: _tell(event, ticker), Clock())
    run.stop_on_signals()
    watching = asyncio.create_task(_watch(database, jobs, run, ticker))
    try:
        await run.until_done(
            lambda job_id: job_id in jobs,
            lambda pid: ticker.say(f"process {pid} works this database already; following it"),
        )
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        ticker.clear()
    return await _report(database, jobs, ticker, as_json, interrupted=run.interrupted)


async def _report(
    database: Database, jobs: Collection[int], ticker: Ticker, as_json: AsJson | None, *, interrupted: bool
) -> int:
    """Print how the jobs ended, or that they did not; return the exit code."""
    reader = database.read
    unfinished: list[Progress] = []
    facts = []
    incomplete = False
    for job_id in jobs:
        now = await progress(reader, job_id, time.time())
        if now is None:
            continue
        if not now.ended:
            unfinished.append(now)
        bad = await reader.unreadable(job_id)
        incomplete |= now.ended and (now.failed + now.cancelled > 0 or bool(bad))
        if as_json is None:
            await _summarise(reader, now, bad)
        else:
            facts.append((await gather(reader, job_id)).facts())
    if as_json is not None:
        print_json(as_json(facts))
    if unfinished and interrupted:
        ticker.say("stopped; all answers so far are kept. Go on with: distllm resume")
        return EXIT_INTERRUPTED
    if unfinished:
        paused = " ".join(str(now.job_id) for now in unfinished)
        ticker.say(f"paused from elsewhere; all answers so far are kept. Go on with: distllm resume {paused}")
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if incomplete else 0


def _tell(event: Event, ticker: Ticker) -> None:
    match event:
        case WorkerChanged(worker, healthy, error):
            if not healthy:
                ticker.say(f"worker {worker} does not answer: {error}")
            elif error:
                ticker.say(f"worker {worker}: {error}")
        case TriedInVain(worker=worker, error=error, final=final):
            ticker.say(f"worker {worker}: {error}{' (given up)' if final else ''}")
        case Noticed(text):
            ticker.say(text)
        case Answered() | Leased():
            pass


async def _watch(database: Database, jobs: Collection[int], run: Run, ticker: Ticker) -> None:
    while True:
        # The run itself says so where the database is out of reach.
        with suppress(StoreError):
            states = [await progress(database.read, job_id, time.time()) for job_id in jobs]
            rest = await resting(database.read, time.time())
            ticker.show(_line([state for state in states if state is not None], run.interrupted, rest))
        await asyncio.sleep(EVERY_SECONDS)


def _line(states: list[Progress], stopping: bool, rest: Rest | None) -> str:
    total, done = sum(state.total for state in states), sum(state.done for state in states)
    failed, leased = sum(state.failed for state in states), sum(state.leased for state in states)
    line = f"{number(done)} of {count(total, 'prompt')} answered"
    parts, parts_done = sum(state.parts for state in states), sum(state.parts_done for state in states)
    if parts:
        line += f" ({number(parts_done)} of {number(parts)} about parts)"
    if failed:
        line += f", {number(failed)} failed"
    if stopping:
        return f"{line}; stopping when what is in flight has ended (Ctrl-C again stops at once)"
    if rest is not None and not leased:
        return f"{line}; waiting for the working hours ({rest.hours}), until {rest.until:%H:%M}"
    etas = [state.eta for state in states if not state.ended]
    if etas and all(eta is not None for eta in etas):
        return f"{line}, about {span(max(eta for eta in etas if eta is not None))} left"
    if not done and not leased:
        return f"{line}; waiting for a worker"
    return line


async def _summarise(reader: Reader, state: Progress, bad: list[Record]) -> None:
    """Print how a job ended; `bad` are the files that could not be read."""
    job = await reader.job(state.job_id)
    assert job is not None
    papers = job["files"] - job["unreadable"] - job["copies"]
    heading = f"Job {state.job_id}, {state.job}: {state.state}"
    about = f" about {count(papers, 'document')}" if job["files"] else ""
    lines = [f"{number(state.done)} of {count(state.total, 'prompt')}{about} answered"]
    # Nothing is said of the time where the clock was set back meanwhile.
    if state.ended and job["ended"] and job["began"] and job["ended"] >= job["began"]:
        lines[0] += f", in {span(job['ended'] - job['began'])}"
    if job["prompt_tokens"]:
        asked, written = number(job["prompt_tokens"]), number(job["completion_tokens"])
        lines.append(f"{asked} tokens were asked about, {written} were written")
    if (cost := await reading(reader, state.job_id)) is not None:
        lines.append(f"read: {read_once(cost, files=bool(job['files']))}")
    if job["reused"]:
        sources = ", ".join(str(source["job_id"]) for source in await reader.sources(state.job_id))
        jobs = f"job{'s' if ',' in sources else ''} {sources}"
        lines.append(f"{count(job['reused'], 'answer')} reused from {jobs} and not asked again (--fresh asks anew)")
    if job["truncated"]:
        lines.append(f"{count(job['truncated'], 'answer')} cut at the token limit (finish_reason: length)")
    if job["copies"]:
        lines.append(f"{count(job['copies'], 'file')} with the same content as another, asked about once")
    for row in bad:
        lines.append(f"not read: {row['document']}: {row['problem']}")
    failures = await reader.failures(state.job_id, NEWEST_FAILURES)
    for row in failures:
        lines.append(f"failed: {failed_prompt(row)}: {row['error']}")
    if state.failed > len(failures):
        lines.append(f"and {number(state.failed - len(failures))} more: select * from failures")
    if state.cancelled:
        lines.append(f"{count(state.cancelled, 'prompt')} cancelled and not asked")
    if state.done:
        lines.append(f"read them: distllm results {state.job_id}")
    tell("\n  ".join([heading, *lines]))
