"""How long the transactions of a database wait for each other's locks, as its server tells it now and again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.fresh import SPAWN
from distllm.domain.places import PostgresUrl

LOOK_EVERY_SECONDS = 0.01

_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'
"""
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1"


class Seen(NamedTuple):
    """So far: the commits, and the seconds of waiting that were seen; `backend` is the server's process that tells."""

    backend: int
    commits: int
    waited: float


class Watcher:
    """A process that looks on."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def seen(self) -> Seen:
        """What it has seen so far."""
        self._pipe.send(None)
        seen: Seen = self._pipe.recv()
        return seen


@contextmanager
def watching(beside: PostgresUrl, database: str) -> Iterator[Watcher]:
    """Look at a database from the one `beside` it, so that the looks are not counted, until left."""
    mine, its = SPAWN.Pipe()
    process = SPAWN.Process(target=_watch, args=(its, beside, database), daemon=True)
    process.start()
    try:
        yield Watcher(mine)
    finally:
        process.kill()
        process.join()


def _watch(pipe: Connection, beside: PostgresUrl, database: str) -> None:
    asyncio.run(_look_on(pipe, beside, database))


async def _look_on(pipe: Connection, beside: PostgresUrl, database: str) -> None:
    from distllm.store.postgres.connection import connect

    connection = await connect(beside)
    loop = asyncio.get_running_loop()
    waited, last = 0.0, loop.time()
    while True:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        waiting = await connection.fetchval(_WAITING, database)
        now = loop.time()
        waited += waiting * (now - last)
        last = now
        if pipe.poll():
            pipe.recv()
            commits = await connection.fetchval(_COMMITS, database)
            pipe.send(Seen(connection.get_server_pid(), commits, waited))
