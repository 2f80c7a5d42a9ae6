"""What becomes of the workers of a coordinator that has died, on PostgreSQL, where others may have been there too."""

import subprocess
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from distllm.domain.places import PostgresUrl
from distllm.store.database import Database, open_database
from distllm.store.fleet import know_worker
from distllm.store.hearts import Heart
from distllm.store.machines import this_machine

NOW = "extract(epoch FROM clock_timestamp())"
BEFORE = "extract(epoch FROM pg_postmaster_start_time()) - 3"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with open_database(PostgresUrl(postgres_url)) as database:
        yield database


@pytest.fixture
async def others(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody else."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
async def heart(database: Database) -> AsyncIterator[Heart]:
    heart = await database.heart()
    assert heart is not None
    yield heart
    await heart.close()


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


async def another(
    others: asyncpg.Connection, database: Database, *, host: str, pid: int, alive_until: str, ended: str = "NULL"
) -> tuple[int, int]:
    """A coordinator that told of requests for an hour to come, and its worker."""
    worker = await database.write(lambda tx: know_worker(tx, "http://a:1", "a", "openai"))
    coordinator = await others.fetchval(
        "INSERT INTO coordinators (host, pid, started_at, alive_until, ended_at, busy_until) "
        f"VALUES ($1, $2, 0, {alive_until}, {ended}, {NOW} + 3600) RETURNING id",
        host,
        pid,
    )
    await others.execute("UPDATE workers SET coordinator_id = $1 WHERE id = $2", coordinator, worker)
    return coordinator, worker


async def test_who_died_while_the_server_was_away_is_seen_to_be_gone_by_its_machine(
    database: Database, heart: Heart, others: asyncpg.Connection
) -> None:
    _, worker = await another(others, database, host=this_machine(), pid=ended_process(), alive_until=BEFORE)
    assert (await heart.beat([worker], [], 1.0)).dead
    assert await database.write(lambda tx: heart.bury(tx, 0.0)) == 1
    assert (await heart.beat([worker], [], 1.0)).free == (worker,)


async def test_who_may_be_frozen_elsewhere_keeps_its_workers_after_the_server_was_away(
    database: Database, heart: Heart, others: asyncpg.Connection
) -> None:
    _, worker = await another(others, database, host="elsewhere", pid=1, alive_until=f"{BEFORE} - 60")
    assert await database.write(lambda tx: heart.bury(tx, 0.0)) == 1
    beat = await heart.beat([worker], [], 1.0)
    assert (beat.free, beat.dead) == ((), False)


async def test_whose_lock_is_free_after_it_was_buried_has_no_workers_any_more(
    database: Database, heart: Heart, others: asyncpg.Connection
) -> None:
    dead, worker = await another(
        others, database, host="elsewhere", pid=1, alive_until=f"{NOW} - 0.01", ended=f"{NOW} - 0.005"
    )
    # As one that renewed after the server had begun.
    await others.execute(f"SELECT pg_sleep(greatest(0, {BEFORE} + 5 - {NOW}))")
    await others.execute(f"UPDATE coordinators SET alive_until = {NOW} WHERE id = $1", dead)
    lock = "hashtext('distllm coordinator'), $1"
    await others.fetchval(f"SELECT pg_advisory_lock({lock})", dead)
    assert not (await heart.beat([worker], [], 1.0)).dead
    await others.fetchval(f"SELECT pg_advisory_unlock({lock})", dead)
    beat = await heart.beat([worker], [], 1.0)
    assert (beat.free, beat.dead) == ((), True)
    assert await database.write(lambda tx: heart.bury(tx, 0.0)) == 0
    assert (await heart.beat([worker], [], 1.0)).free == (worker,)


async def test_a_worker_of_somebody_who_is_not_known_is_not_taken(
    database: Database, heart: Heart, others: asyncpg.Connection
) -> None:
    _, worker = await another(others, database, host="elsewhere", pid=1, alive_until=f"{NOW} + 60")
    assert (await heart.beat([worker], [], 1.0)).free == ()
    assert await heart.take([worker]) == frozenset()
