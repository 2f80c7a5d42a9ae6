"""`distllm submit`."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distllm.cli.screen import Ticker, out, safe, tell
from distllm.compose.fleet import model_for, open_fleet
from distllm.config import Config, preset_folders
from distllm.documents import Source, copied_stdin, find_files
from distllm.domain.clock import Clock
from distllm.domain.errors import UsageError
from distllm.domain.places import DatabasePlace
from distllm.domain.words import count, number, span
from distllm.presets import Preset, load_preset, preset_of_prompts
from distllm.scratch import scratch_folder

if TYPE_CHECKING:
    from distllm.compose.fleet import Fleet
    from distllm.intake import Plan, Request


@dataclass(frozen=True, slots=True)
class Submission:
    """The options of `distllm submit`, as they were given."""

    paths: list[Path]
    preset: str | None
    prompts: list[str]
    job: Path | None
    model: str | None
    name: str | None
    max_tokens: int | None
    temperature: float | None
    priority: int | None
    fresh: bool
    detach: bool
    dry_run: bool
    as_json: bool


def submit_job(db: DatabasePlace, config: Path | None, given: Submission) -> int:
    """Store a job, and run it unless it is to be detached; return the exit code."""
    given = with_job_file(given)
    if not given.paths:
        raise UsageError("nothing to read: name files or folders, or - for standard input")
    for text in filter(None, (*given.prompts, given.name, given.model)):
        text.encode("utf-8")  # Before a database is made for what it cannot keep.
    settings, preset = Config.load(config), preset_of(given)
    # Before the event loop: there Ctrl-C would not end a read that waits for a pipe or for someone typing.
    with copied_stdin(given.paths, sys.stdin.buffer if sys.stdin else None) as stdin:
        return asyncio.run(_submit(db, settings, preset, given, find_files(given.paths, stdin)))


def with_job_file(given: Submission) -> Submission:
    """What the command line leaves open, the job file says."""
    if given.job is None:
        return given
    if given.preset or given.prompts:
        raise UsageError("--job brings its own questions: leave --preset and --prompt out")
    from distllm.presets.job import load_job

    job = load_job(given.job)
    return replace(
        given,
        paths=given.paths or job.paths,
        preset=job.preset,
        prompts=job.prompts,
        model=given.model or job.model,
        name=given.name or job.name,
        max_tokens=given.max_tokens or job.max_tokens,
        temperature=job.temperature if given.temperature is None else given.temperature,
        priority=job.priority if given.priority is None else given.priority,
    )


def preset_of(given: Submission) -> Preset:
    """The questions that are to be asked. Raises UsageError where there are none, or where they come from two sides."""
    if given.preset and given.prompts:
        raise UsageError("--preset and --prompt exclude each other: give one of them")
    if given.prompts:
        return preset_of_prompts(given.prompts)
    if given.preset:
        return load_preset(given.preset, preset_folders())
    raise UsageError("nothing to ask: give --preset NAME (research, summary, analysis), --prompt TEXT or --job FILE")


async def _submit(db: DatabasePlace, config: Config, preset: Preset, given: Submission, sources: list[Source]) -> int:
    ticker = Ticker()
    clock = Clock()
    async with open_fleet(config) as fleet:
        model = await model_for(fleet, given.model, config)
        if not (given.detach or given.dry_run):
            fleet.warm_up()
        # The store and the dispatcher take half a second to import: the worker starts meanwhile.
        await asyncio.to_thread(import_module, "distllm.cli.work")
        from distllm.cli.work import work
        from distllm.compose.run import inquiries
        from distllm.intake import Request, build, create
        from distllm.store.database import open_database

        priority = given.priority or 0
        request = Request(
            sources,
            preset,
            model,
            given.name,
            given.max_tokens,
            given.temperature,
            priority,
            given.fresh,
            references=not config.leave_out_references,
        )
        if given.dry_run:
            return await _rehearse(db, request, fleet, ticker, as_json=given.as_json)
        async with open_database(db) as database:
            created = await create(database, request, clock)
            job_id = created.job_id
            if created.known:
                ticker.say(f"job {job_id} asks exactly this and has not ended: going on with it")
            with _steps(ticker) as on_step:
                await build(database, job_id, on_step, clock, *inquiries(database, fleet))
            if given.detach:
                stored = f"Job {job_id} is stored; run it with: distllm resume {job_id}"
                out.print(json.dumps({"job_id": job_id}) if given.as_json else safe(stored), soft_wrap=True)
                return 0
            asking = any(job["job_id"] == job_id for job in await database.read.unfinished())
            if fleet.notice is not None and asking:
                ticker.say(fleet.notice)
            return await work(database, config, fleet, [job_id], ticker, _only if given.as_json else None)


def _only(facts: list[dict[str, Any]]) -> dict[str, Any]:
    return facts[0]


@contextmanager
def _steps(ticker: Ticker) -> Iterator[Callable[[int, int, str], None]]:
    try:
        yield lambda done, total, what: ticker.show(f"{done} of {total} {what}")
    finally:
        ticker.clear()


async def _rehearse(db: DatabasePlace, request: "Request", fleet: "Fleet", ticker: Ticker, *, as_json: bool) -> int:
    """Print what the job would be; no database is made for that."""
    from distllm.compose.run import inquiries
    from distllm.intake import plan
    from distllm.store.database import open_database
    from distllm.store.reads import is_made

    with scratch_folder() as folder:
        async with open_database(db if await is_made(db) else folder / "none.db") as database:
            with _steps(ticker) as on_step:
                found = await plan(
                    database,
                    request,
                    on_step,
                    Clock(),
                    *inquiries(database, fleet),
                    [worker.identity for worker, _ in fleet.workers],
                )
    if as_json:
        out.print(json.dumps(_facts(found)), soft_wrap=True)
    else:
        tell("\n  ".join(_lines(found)))
    return 0


def _facts(found: "Plan") -> dict[str, object]:
    counts = found.counts
    return {
        "job": found.name,
        "model": found.model,
        "files": found.files,
        "not_read": [{"document": name, "problem": problem} for name, problem in found.unreadable],
        "prompts": counts.prompts,
        "reused": counts.reused,
        "requests": counts.requests,
        "window": counts.window,
        "split_documents": counts.split,
        "parts": counts.parts,
        "merges": counts.merges,
        "documents_to_read": counts.readings,
        "document_tokens": counts.reading_tokens,
        "question_tokens": counts.question_tokens,
        "answer_tokens": counts.answer_tokens,
        "longest_prompt_tokens": counts.longest,
        "seconds": found.seconds,
    }


def _lines(found: "Plan") -> list[str]:
    counts = found.counts
    lines = [f"{found.name}, with {found.model}: nothing is stored or asked (--dry-run)"]
    lines.append(f"{count(counts.prompts, 'prompt')} about {count(found.files - len(found.unreadable), 'file')}")
    if counts.reused:
        lines.append(f"{count(counts.reused, 'answer')} that exist already would be reused (--fresh asks anew)")
    if counts.split:
        lines.append(
            f"{count(counts.split, 'document')} longer than the largest context window, of {number(counts.window)} "
            f"tokens: asked about in parts whose answers are put together: {count(counts.requests, 'request')} in all"
        )
    lines.append(
        f"{count(counts.readings, 'text')} to read, about {number(counts.reading_tokens)} tokens, each once; "
        f"{number(counts.question_tokens)} more for the questions"
    )
    lines.append(
        f"answers of at most {number(counts.answer_tokens)} tokens; the longest prompt needs a context window of "
        f"{number(counts.longest)}"
    )
    if found.seconds is not None and counts.prompts > counts.reused:
        lines.append(f"about {span(found.seconds)}, at the speeds measured so far")
    return lines + [f"not read: {name}: {problem}" for name, problem in found.unreadable]
