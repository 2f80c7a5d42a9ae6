"""What one process at a time does for a database that many may work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.store.engines import postgres


@asynccontextmanager
async def duty(place: DatabasePlace, name: str) -> AsyncIterator[asyncio.Event]:
    """Wait until no other process has a duty, and have it until the end, or until the event says that it is lost.

    Raises StoreError if the server is out of reach. With a file nobody waits: it has one service, and all who build
    its jobs find the same files.
    """
    if isinstance(place, PostgresUrl):
        async with postgres("duty").on_duty(place, name) as lost:
            yield lost
    else:
        yield asyncio.Event()
