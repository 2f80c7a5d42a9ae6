"""A duty is one process's at a time, and whoever dies or is cut off has it no longer."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from distllm.domain.places import PostgresUrl
from distllm.store.duties import duty
from distllm.store.tx import StoreError


async def test_the_second_has_a_duty_once_the_first_has_done_it(postgres_url: str) -> None:
    place, began = PostgresUrl(postgres_url), asyncio.Event()

    async def second() -> None:
        async with duty(place, "batches"):
            began.set()

    async with duty(place, "batches"), duty(place, "another"):
        waiting = asyncio.create_task(second())
        done, _ = await asyncio.wait({waiting}, timeout=1.5)
        assert not done
        assert not began.is_set()
    async with asyncio.timeout(10):
        await waiting
    assert began.is_set()


async def test_who_is_cut_off_is_told_and_another_takes_over(postgres_url: str) -> None:
    place = PostgresUrl(postgres_url)
    async with duty(place, "batches") as lost:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE '%batches'"
        )
        await connection.close()
        async with asyncio.timeout(10):
            await lost.wait()
            async with duty(place, "batches") as again:
                assert not again.is_set()


async def test_a_server_that_is_away_is_said_to_be(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="createdb not_made"):
        async with duty(PostgresUrl(postgres_url.rpartition("/")[0] + "/not_made"), "batches"):
            pass


async def test_nobody_waits_for_a_duty_of_a_file(tmp_path: Path) -> None:
    async with duty(tmp_path / "d.db", "batches"), duty(tmp_path / "d.db", "batches") as lost:
        assert not lost.is_set()
