"""`distllm resume`."""

import asyncio
from pathlib import Path

from distllm.cli.screen import Ticker, out, safe
from distllm.cli.work import work
from distllm.compose import finish_builds, open_fleet
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.errors import DistllmError, UsageError
from distllm.store.database import open_database


def resume_jobs(db: Path, config: Path | None, jobs: list[int]) -> int:
    """Go on with `jobs`, or with all that are unfinished; return the exit code."""
    if not db.exists():
        raise DistllmError(f"there is no database {db} yet: `distllm submit` makes one, or name another with --db")
    return asyncio.run(_resume(db, Config.load(config), jobs))


async def _resume(db: Path, config: Config, jobs: list[int]) -> int:
    ticker = Ticker()
    async with open_fleet(config) as fleet, open_database(db) as database:
        for job_id in jobs:
            if await database.read.job(job_id) is None:
                raise UsageError(f"there is no job {job_id}: `distllm status` lists them")
        unfinished = [job["job_id"] for job in await database.read.unfinished()]
        wanted = [job_id for job_id in unfinished if not jobs or job_id in jobs]
        if not wanted:
            out.print("Nothing is unfinished." if not jobs else safe("These jobs have ended: see `distllm status`."))
            return 0
        fleet.warm_up()
        try:
            await finish_builds(database, lambda done, total: ticker.show(f"{done} of {total} files read"), Clock())
        finally:
            ticker.clear()
        return await work(database, config, fleet, wanted, ticker)
