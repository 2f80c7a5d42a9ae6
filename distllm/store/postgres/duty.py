"""What one process at a time does, where several may: whoever has a lock on the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from distllm.domain.places import PostgresUrl
from distllm.store.postgres.connection import AWAY, ME, connect, unreachable

DUTY_EVERY_SECONDS = 0.5
_TRY_DUTY = "SELECT pg_try_advisory_lock(hashtext('distllm duty'), hashtext($1))"


@asynccontextmanager
async def on_duty(url: PostgresUrl, name: str) -> AsyncIterator[asyncio.Event]:
    """Have a lock of a connection of its own, which nobody keeps who has died; the event is set if that is lost."""
    connection = await connect(url, server_settings={"application_name": f"{ME} {name}"})
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        while not await _try_duty(url, connection, name):  # noqa: ASYNC110 - a wait in SQL keeps what is old from going
            await asyncio.sleep(DUTY_EVERY_SECONDS)
        yield lost
    finally:
        connection.terminate()


async def _try_duty(url: PostgresUrl, connection: "asyncpg.Connection", name: str) -> bool:
    try:
        return bool(await connection.fetchval(_TRY_DUTY, name))
    except (*AWAY, asyncpg.PostgresError) as error:
        raise unreachable(url, error) from error
