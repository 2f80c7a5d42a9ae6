"""`distllm resume`."""

import asyncio
from importlib import import_module
from pathlib import Path

from distllm.cli.screen import Ticker, out, print_json
from distllm.cli.status import gather
from distllm.compose.fleet import open_fleet
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.errors import NoJobError
from distllm.domain.places import DatabasePlace
from distllm.store.reads import open_reader


def resume_jobs(db: DatabasePlace, config: Path | None, jobs: list[int], as_json: bool) -> int:
    """Go on with `jobs`, or with all that are unfinished; return the exit code."""
    return asyncio.run(_resume(db, Config.load(config), jobs, as_json))


async def _resume(db: DatabasePlace, config: Config, jobs: list[int], as_json: bool) -> int:
    async with open_reader(db) as reader:
        for job_id in jobs:
            if await reader.job(job_id) is None:
                raise NoJobError(job_id)
        paused = await reader.paused()
        unfinished = {job["job_id"] for job in await reader.unfinished()} | paused.intersection(jobs)
        wanted = sorted(unfinished.intersection(jobs) if jobs else unfinished)
        if not wanted:
            if as_json:
                print_json([(await gather(reader, job_id)).facts() for job_id in jobs])
            else:
                out.print(_nothing_to_do(paused) if not jobs else "These jobs have ended: see `distllm status`.")
            return 0
    async with open_fleet(config) as fleet:
        fleet.warm_up()
        # The store and the dispatcher take half a second to import: the worker starts meanwhile.
        await asyncio.to_thread(import_module, "distllm.cli.work")
        from distllm.cli.work import work
        from distllm.compose.run import finish_begun
        from distllm.store.control import go_on
        from distllm.store.database import open_database

        ticker = Ticker()
        async with open_database(db) as database:
            await database.write(lambda tx: go_on(tx, paused.intersection(jobs)))
            try:
                await finish_begun(
                    database, fleet, lambda done, total, what: ticker.show(f"{done} of {total} {what}"), Clock()
                )
            finally:
                ticker.clear()
            return await work(database, config, fleet, wanted, ticker, list if as_json else None)


def _nothing_to_do(paused: set[int]) -> str:
    if not paused:
        return "Nothing is unfinished."
    one = len(paused) == 1
    named = " ".join(map(str, sorted(paused)))
    return (
        f"Nothing is unfinished but {'job' if one else 'jobs'} {named.replace(' ', ', ')}, which "
        f"{'is' if one else 'are'} paused; go on with: distllm resume {named}"
    )
