"""`/health/live` and `/health/ready`, for whatever starts, watches and restarts services."""

import asyncio

from aiohttp import web

from distllm.domain.errors import DistllmError
from distllm.service.desk import DESK, Desk
from distllm.service.room import Room

PREFIX = "/health"
WRITE_SECONDS = 2.0
"""How long a database that is busy may take to let somebody write."""


async def show_alive(_: web.Request) -> web.Response:
    """The process runs and answers."""
    return web.json_response({"status": "alive"})


class Readiness:
    """Whether jobs can be taken and worked: the database can be written, and some coordinator works it."""

    def __init__(self) -> None:
        self._trying: asyncio.Task[None] | None = None

    async def show(self, request: web.Request) -> web.Response:
        """200 if all is well, else 503; each part is told."""
        desk = request.app[DESK]
        database = await self._database(desk)
        coordinator = await desk.database.read.coordinator()
        ready = database == "writable" and coordinator is not None and not desk.leaving()
        facts = {
            "status": "ready" if ready else "not ready",
            "database": database,
            "coordinator": coordinator,
            "coordinating": desk.coordinating(),
            "stopping": desk.leaving(),
        }
        return web.json_response(facts, status=200 if ready else 503)

    async def _database(self, desk: Desk) -> str:
        # One try for all who ask meanwhile: a database that is held must not gather them.
        if self._trying is None or self._trying.done():
            self._trying = asyncio.create_task(_try_to_write(desk))
        try:
            await asyncio.wait_for(asyncio.shield(self._trying), WRITE_SECONDS)
        except TimeoutError:
            return "busy"
        except DistllmError:
            return "not writable"
        return "writable"


async def _try_to_write(desk: Desk) -> None:
    """A transaction that writes nothing: it begins as one that does."""
    await desk.database.write(lambda tx: None)


def health_room() -> Room:
    """Health, which needs no token and tells nobody anything else."""
    readiness = Readiness()
    routes = [web.get(f"{PREFIX}/live", show_alive), web.get(f"{PREFIX}/ready", readiness.show)]
    return Room(PREFIX, routes, needs_no_token=True)
