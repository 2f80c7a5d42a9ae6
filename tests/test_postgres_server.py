"""The server that tests have is real, their databases are their own, and nothing of it outlives them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from distllm.store.migrate import revisions
from tests import processes
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parent.parent


async def test_a_test_gets_a_migrated_database_and_another_an_empty_one(
    postgres_url: str, empty_postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == revisions()[-1]
    await connection.close()
    connection = await asyncpg.connect(empty_postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()


async def test_a_database_is_dropped_also_while_it_is_used(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        connection = await asyncpg.connect(url)
    with postgres_server.database() as other:
        assert other != url
    connection.terminate()
    name = url.rpartition("/")[2]
    gone = f"DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}'); END $$"
    postgres_server.execute(gone)


@pytest.mark.usefixtures("postgres_server")
def test_the_server_ends_with_the_process_that_started_it_also_by_sigkill() -> None:
    starting = (
        "import sys\n"
        "from tests.postgres_server import running\n"
        "with running() as server:\n"
        "    print(server.port, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starting], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        assert int(started.stdout.readline())
        family = processes.descendants_of(started.pid)
        assert any("postgres" in processes.command_of(pid) for pid in family)
        started.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while any(processes.is_alive(pid) for pid in family):
        assert time.monotonic() < until, [processes.command_of(pid) for pid in family]
        time.sleep(0.02)
