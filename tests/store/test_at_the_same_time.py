"""What programs do to one PostgreSQL database at the same time comes to what one after another would have done."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy.util.concurrency import await_only

from distllm.domain.models import Ask, Document, ErrorClass, Usage
from distllm.domain.policy import Failed
from distllm.store.claims import claim
from distllm.store.control import cancel_some, request_cancel, retry_some
from distllm.store.database import Database, open_database
from distllm.store.leases import reclaim
from distllm.store.postgres.writer import PostgresWriter
from distllm.store.results import settle
from distllm.store.submissions import build_prompts, create_job, save_document
from distllm.store.tx import Tx
from tests.store.store_kit import (
    HUGE,
    MODEL,
    NOW,
    PostgresStore,
    add_job,
    assert_consistent,
    end,
    paper,
    reading,
    request,
)
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


@pytest.fixture
async def pair(postgres_store: PostgresStore) -> AsyncIterator["Pair"]:
    one, two = PostgresWriter(postgres_store.place, 1), PostgresWriter(postgres_store.place, 2)
    yield Pair(postgres_store, one, two)
    await one.close()
    await two.close()


@dataclass
class Pair:
    """Two programs, each of which counts in rows of its own."""

    store: PostgresStore
    one: PostgresWriter
    two: PostgresWriter

    async def while_uncommitted(self, first: Callable[[Tx], Any], second: Callable[[Tx], Any]) -> None:
        """Have `one` run `first` up to its COMMIT, which comes once `two` waits for it with `second`, or has ended."""
        written, go_on = asyncio.Event(), asyncio.Event()

        def held(tx: Tx) -> None:
            first(tx)
            written.set()
            await_only(go_on.wait())

        before = asyncio.create_task(self.one.run(held))
        await written.wait()
        after = asyncio.create_task(self.two.run(second))
        while not after.done() and not self.store.value(_WAITING):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.gather(before, after)


_WAITING = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE NOT l.granted AND a.datname = current_database()
"""


async def test_an_answer_that_comes_while_its_job_is_cancelled_comes_too_late(
    postgres_store: PostgresStore, pair: Pair
) -> None:
    job = add_job(postgres_store, ["one"])
    me, worker = postgres_store.coordinator(), postgres_store.worker("studio")
    [lease] = postgres_store.must_take(me, worker).leases
    answer = end(postgres_store.send(me, worker, lease))
    postgres_store.write(lambda tx: request_cancel(tx, job, NOW))
    await pair.while_uncommitted(lambda tx: cancel_some(tx, job, NOW), lambda tx: settle(tx, [answer]))
    assert postgres_store.states(job) == {"cancelled": 1}
    assert postgres_store.rows("SELECT outcome FROM attempts") == [("stale",)]
    assert_consistent(postgres_store)


async def test_an_answer_that_comes_while_its_prompt_is_leased_anew_comes_too_late(
    postgres_store: PostgresStore, pair: Pair
) -> None:
    job = add_job(postgres_store, ["one"])
    dead, worker = postgres_store.coordinator(), postgres_store.worker("studio")
    [lease] = postgres_store.must_take(dead, worker).leases
    answer = end(postgres_store.send(dead, worker, lease))
    me = postgres_store.reclaim()
    await pair.while_uncommitted(
        lambda tx: claim(tx, [Ask(worker, {MODEL: HUGE}, 1)], [], me, NOW),
        lambda tx: settle(tx, [answer]),
    )
    assert postgres_store.states(job) == {"leased": 1}
    assert_consistent(postgres_store)


async def test_an_answer_that_comes_while_its_lease_is_taken_back_is_counted_once(
    postgres_store: PostgresStore, pair: Pair
) -> None:
    job = add_job(postgres_store, ["one"])
    dead, worker = postgres_store.coordinator(), postgres_store.worker("studio")
    [lease] = postgres_store.must_take(dead, worker).leases
    answer = end(postgres_store.send(dead, worker, lease))
    me = postgres_store.coordinator()
    await pair.while_uncommitted(lambda tx: reclaim(tx, me, NOW), lambda tx: settle(tx, [answer]))
    assert postgres_store.states(job) == {"done": 1}
    assert_consistent(postgres_store)


async def test_a_job_goes_on_that_is_retried_while_its_last_prompt_ends(
    postgres_store: PostgresStore, pair: Pair
) -> None:
    job = add_job(postgres_store, ["one"], ["findings", "limits", "methods"])
    me, worker = postgres_store.coordinator(), postgres_store.worker("studio")
    failing, *others = postgres_store.must_take(me, worker).leases
    postgres_store.settle(end(postgres_store.send(me, worker, failing), ErrorClass.BROKEN, judged=Failed()))
    answers = [end(postgres_store.send(me, worker, lease)) for lease in others]
    await pair.two.run(lambda tx: settle(tx, answers[:1]))
    await pair.while_uncommitted(lambda tx: retry_some(tx, job, NOW), lambda tx: settle(tx, answers[1:]))
    assert postgres_store.states(job) == {"done": 2, "pending": 1}
    assert_consistent(postgres_store)


async def test_a_reading_that_two_are_first_to_answer_about_is_begun_once(
    postgres_store: PostgresStore, pair: Pair
) -> None:
    job = add_job(postgres_store, ["one"], ["findings", "limits"])
    me, workers = postgres_store.coordinator(), [postgres_store.worker("studio"), postgres_store.worker("mini")]
    leases = postgres_store.must_take(me, workers[0]).leases
    # Not every server tells what it has read.
    one, two = (
        replace(answer, outcome=replace(answer.outcome, usage=Usage()))
        for answer in (end(postgres_store.send(me, *each)) for each in zip(workers, leases, strict=True))
    )
    await pair.while_uncommitted(lambda tx: settle(tx, [one]), lambda tx: settle(tx, [two]))
    assert postgres_store.states(job) == {"done": 2}
    assert postgres_store.value("SELECT sum(begun_tokens) FROM job_tokens") == len("one")
    assert_consistent(postgres_store)
