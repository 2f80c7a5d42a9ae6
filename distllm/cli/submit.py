"""`distllm submit`."""

import asyncio
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from distllm.cli.screen import Ticker, out, safe
from distllm.compose.fleet import model_for, open_fleet
from distllm.config import Config, user_folder
from distllm.documents import Source, copied_stdin, find_files
from distllm.domain.clock import Clock
from distllm.domain.errors import UsageError
from distllm.presets import Preset, load_preset, preset_of_prompts


@dataclass(frozen=True, slots=True)
class Submission:
    """The options of `distllm submit`, as they were given."""

    paths: list[Path]
    preset: str | None
    prompts: list[str]
    model: str | None
    name: str | None
    max_tokens: int | None
    temperature: float | None
    priority: int
    detach: bool


def submit_job(db: Path, config: Path | None, given: Submission) -> int:
    """Store a job, and run it unless it is to be detached; return the exit code."""
    settings, preset = Config.load(config), _preset(given)
    # Before the event loop: there Ctrl-C would not end a read that waits for a pipe or for someone typing.
    with copied_stdin(given.paths, sys.stdin.buffer if sys.stdin else None) as stdin:
        return asyncio.run(_submit(db, settings, preset, given, find_files(given.paths, stdin)))


def _preset(given: Submission) -> Preset:
    if given.preset and given.prompts:
        raise UsageError("--preset and --prompt exclude each other: give one of them")
    if given.prompts:
        return preset_of_prompts(given.prompts)
    if given.preset:
        return load_preset(given.preset, [Path("presets"), user_folder() / "presets"])
    raise UsageError("nothing to ask: give --preset NAME (research, summary, analysis) or --prompt TEXT")


async def _submit(db: Path, config: Config, preset: Preset, given: Submission, sources: list[Source]) -> int:
    ticker = Ticker()
    clock = Clock()
    async with open_fleet(config) as fleet:
        model = await model_for(fleet, given.model, config)
        if not given.detach:
            fleet.warm_up()
        # The store and the dispatcher take half a second to import: the worker starts meanwhile.
        await asyncio.to_thread(import_module, "distllm.cli.work")
        from distllm.cli.work import work
        from distllm.intake import Request, build, create
        from distllm.store.database import open_database

        request = Request(sources, preset, model, given.name, given.max_tokens, given.temperature, given.priority)
        async with open_database(db) as database:
            job_id = await create(database, request, clock)
            try:
                await build(database, job_id, lambda done, total: ticker.show(f"{done} of {total} files read"), clock)
            finally:
                ticker.clear()
            if given.detach:
                out.print(safe(f"Job {job_id} is stored; run it with: distllm resume {job_id}"))
                return 0
            if fleet.embedded:
                ticker.say(
                    f"no worker is configured: using the embedded {model}, whose answers are only for trying things out"
                )
            return await work(database, config, fleet, [job_id], ticker)
