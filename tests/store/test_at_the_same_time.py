"""What programs do to one PostgreSQL database at the same time comes to what one after another would have done."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from distllm.domain.models import Ask, Document
from distllm.store.claims import claim
from distllm.store.control import cancel_some, request_cancel, retry_some
from distllm.store.database import Database, open_database
from distllm.store.submissions import build_prompts, create_job, save_document
from distllm.store.tx import Tx
from tests.store.store_kit import HUGE, MODEL, NOW, PostgresStore, add_job, paper, reading, request
from tests.store.test_prune import fail_all

PROGRAMS = 6


@pytest.fixture
async def programs(postgres_store: PostgresStore) -> AsyncIterator[list[Database]]:
    """As many programs, each with connections of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_database(postgres_store.place)) for _ in range(PROGRAMS)]


async def by_all(programs: list[Database], transaction: Callable[[Tx], Any]) -> list[Any]:
    return await asyncio.gather(*(program.write(transaction) for program in programs))


async def test_one_request_made_by_all_is_one_job_whose_prompts_are_written_once(programs: list[Database]) -> None:
    new = request([f"{place}.txt" for place in range(20)], ["findings", "limits"])
    [job] = set(await by_all(programs, lambda tx: create_job(tx, new, NOW)))

    def save(tx: Tx) -> None:
        for place in range(20):
            save_document(tx, job, place, paper(f"paper {place}"), reading, NOW)

    await by_all(programs, save)
    assert set(await by_all(programs, lambda tx: build_prompts(tx, job, NOW))) == {True}
    found = await programs[0].read.job(job)
    assert found is not None
    assert (found["total"], found["pending"], found["files"], found["unreadable"]) == (40, 40, 20, 0)


async def test_files_that_cannot_be_opened_keep_their_own_problems(programs: list[Database]) -> None:
    async def submit(program: Database, name: str) -> tuple[str, list[dict[str, Any]]]:
        def transaction(tx: Tx) -> int:
            job = create_job(tx, request([name]), NOW)
            save_document(tx, job, 0, Document(None, "", None, None, f"{name} is away"), reading, NOW)
            build_prompts(tx, job, NOW)
            return job

        return name, await program.read.unreadable(await program.write(transaction))

    names = [f"{number}.txt" for number in range(PROGRAMS)]
    for name, found in await asyncio.gather(*map(submit, programs, names)):
        assert found == [{"document": name, "problem": f"{name} is away"}]


async def test_what_is_leased_while_its_job_is_cancelled_is_cancelled_once(
    postgres_store: PostgresStore, programs: list[Database]
) -> None:
    job = add_job(postgres_store, [f"paper {number}" for number in range(30)], ["findings", "limits"])
    coordinators = [postgres_store.coordinator() for _ in programs]
    worker = postgres_store.worker("studio")

    async def lease(program: Database, me: int) -> None:
        for _ in range(10):
            await program.write(lambda tx: claim(tx, [Ask(worker, {MODEL: HUGE}, 2)], [], me, NOW))

    async def cancel(program: Database) -> int:
        await program.write(lambda tx: request_cancel(tx, job, NOW))
        moved = 0
        while some := await program.write(lambda tx: cancel_some(tx, job, NOW)):
            moved += some
        return moved

    leasing = [asyncio.create_task(lease(*each)) for each in zip(programs[2:], coordinators, strict=False)]
    await asyncio.gather(cancel(programs[0]), cancel(programs[1]), *leasing)
    found = await programs[0].read.job(job)
    assert found is not None
    assert (found["state"], found["cancelled"], found["pending"], found["leased"]) == ("cancelled", 60, 0, 0)


async def test_what_all_retry_is_put_back_once(postgres_store: PostgresStore, programs: list[Database]) -> None:
    job = add_job(postgres_store, [f"paper {number}" for number in range(10)])
    fail_all(postgres_store)
    assert sum(await by_all(programs, lambda tx: retry_some(tx, job, NOW))) == 10
    found = await programs[0].read.job(job)
    assert found is not None
    assert (found["pending"], found["failed"], found["finished_at"]) == (10, 0, None)
