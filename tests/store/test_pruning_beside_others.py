"""On a server others write while texts are pruned: what they need stays, or is there anew."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from sqlalchemy.util.concurrency import await_only

from distllm.domain.places import PostgresUrl
from distllm.store.database import Database, open_database
from distllm.store.prune import prune
from distllm.store.submissions import create_job, save_document
from distllm.store.tx import Tx
from tests.store.store_kit import MODEL, NOW, paper, reading, request

TEXT = "what was read long ago"
LEFT = """
WITH one AS (
  INSERT INTO documents (sha256, characters, created_at, text) VALUES ($1, length($2), 0, $2) RETURNING id)
INSERT INTO readings (model, prefix_hash, document_id, tokens) SELECT $3, $4, id, 5 FROM one
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def submit(then: Callable[[], object]) -> Callable[[Tx], None]:
    """A job about one file that is stored already."""

    def transaction(tx: Tx) -> None:
        job = create_job(tx, request(["a.txt"], ["findings"]), NOW)
        save_document(tx, job, 0, paper(TEXT), reading, NOW)
        then()

    return transaction


async def until_one_waits(connection: "asyncpg.Connection") -> None:
    async with asyncio.timeout(20):
        while await connection.fetchval(WAITING) == 0:  # noqa: ASYNC110 - what the server does sets no event here
            await asyncio.sleep(0.01)


async def linked(connection: "asyncpg.Connection") -> tuple[int, str]:
    row = await connection.fetchrow(
        "SELECT count(*) AS files, min(d.text) AS text FROM job_documents f"
        " JOIN readings r ON r.id = f.reading_id JOIN documents d ON d.id = f.document_id AND d.id = r.document_id"
    )
    return row["files"], row["text"]


async def test_what_a_submit_has_found_is_not_pruned(postgres_url: str) -> None:
    place = PostgresUrl(postgres_url)
    go_on = asyncio.Event()
    looking = await asyncpg.connect(postgres_url)
    async with open_database(place) as submitting, open_database(place) as pruning:
        await looking.execute(LEFT, paper(TEXT).sha256, TEXT, MODEL, reading(TEXT).prefix_hash)
        found = asyncio.create_task(submitting.write(submit(lambda: await_only(go_on.wait()))))
        gone = asyncio.create_task(_pruned(pruning))
        await until_one_waits(looking)
        go_on.set()
        await found
        assert await gone == 0
        assert await linked(looking) == (1, TEXT)
    await looking.close()


@pytest.mark.parametrize("gone", ["readings", "readings, documents"])
async def test_what_was_pruned_meanwhile_is_stored_anew(postgres_url: str, gone: str) -> None:
    looking, pruning = [await asyncpg.connect(postgres_url) for _ in range(2)]
    async with open_database(PostgresUrl(postgres_url)) as submitting:
        await looking.execute(LEFT, paper(TEXT).sha256, TEXT, MODEL, reading(TEXT).prefix_hash)
        async with pruning.transaction():
            for table in gone.split(", "):
                await pruning.execute(f"DELETE FROM {table}")
            found = asyncio.create_task(submitting.write(submit(lambda: None)))
            await until_one_waits(looking)
        await found
        assert await linked(looking) == (1, TEXT)
    await looking.close()
    await pruning.close()


async def _pruned(database: Database) -> int:
    gone = await prune(database, 1e12, [], lambda _: None)
    return gone["readings"] + gone["documents"]
