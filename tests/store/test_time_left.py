"""How long a job will take: told from its tokens, before its first answer if the workers are known."""

from dataclasses import replace

import pytest

from distllm.domain.models import Health, Rates, Usage
from distllm.insights import progress
from distllm.store.attempts import Settlement
from distllm.store.fleet import learn, note_health
from distllm.store.leases import Lease
from distllm.store.reads import open_reader
from tests.store.store_kit import MODEL, NOW, Store, add_job, end
from tests.store.test_requests import batch

RATES = Rates(100.0, 10.0)
LATER = NOW + 100


def worker(
    store: Store, name: str = "studio", *, seen: float = NOW, slots: int | None = None, well: bool = True
) -> int:
    """One that is healthy, and reads 100 and writes 10 tokens a second."""
    found = store.worker(name)
    store.write(lambda tx: note_health(tx, found, Health(well, slots=slots), "closed", seen))
    store.write(lambda tx: learn(tx, found, MODEL, RATES, seen))
    return found


def answered(store: Store, me: int, by: int, lease: Lease, now: float, *, cached: int = 0, took: float = 1.0) -> None:
    """One answer, which has read all of its prompt that was not cached."""
    sent = store.send(me, by, lease, now - took)
    usage = Usage(sent.sent_tokens, cached, 50)
    settled: Settlement = end(sent, now=now)
    store.settle(replace(settled, outcome=replace(settled.outcome, usage=usage)))
    store.write(lambda tx: note_health(tx, by, Health(True), "closed", now))


async def left(store: Store, job: int, now: float = NOW) -> float | None:
    async with open_reader(store.place) as reader:
        found = await progress(reader, job, now)
        assert found is not None
        return found.eta


async def warm(store: Store) -> int:
    """A worker that has given an answer of 50 tokens to an earlier job; the coordinator of today has seen it."""
    add_job(store, ["an earlier paper"])
    me, studio = store.coordinator(), worker(store)
    answered(store, me, studio, store.must_take(me, studio).leases[0], NOW)
    return studio


async def test_a_job_that_has_no_answer_yet_takes_what_the_speeds_promise(store: Store) -> None:
    await warm(store)
    job = add_job(store, ["x" * 990, "y" * 1990], ["findings", "limits"])
    store.reclaim(NOW)
    # Each paper once and 4 questions of 10 tokens to read, 4 answers of 50 to write.
    assert await left(store, job) == pytest.approx((2980 + 40) / 100 + 200 / 10)


async def test_of_an_idle_fleet_that_never_answered_nothing_can_be_said(store: Store) -> None:
    job = add_job(store, ["x" * 990])
    store.reclaim()
    assert await left(store, job) is None
    worker(store)
    assert await left(store, job) is None


async def test_only_workers_that_are_well_today_count_and_all_their_seats(store: Store) -> None:
    studio = await warm(store)
    job = add_job(store, ["x" * 990])
    alone = 1000 / 100 + 50 / 10
    store.reclaim(LATER)
    assert await left(store, job, LATER) is None
    store.write(lambda tx: note_health(tx, studio, Health(True), "closed", LATER))
    assert await left(store, job, LATER) == pytest.approx(alone)
    worker(store, "gone", seen=NOW)
    worker(store, "ill", seen=LATER, well=False)
    assert await left(store, job, LATER) == pytest.approx(alone)
    worker(store, "mini", seen=LATER)
    assert await left(store, job, LATER) == pytest.approx(alone / 2)
    store.write(lambda tx: note_health(tx, studio, Health(True, slots=4), "closed", LATER))
    faster = 1000 / 100 + 50 / 40
    assert await left(store, job, LATER) == pytest.approx(1 / (1 / alone + 1 / faster))


async def test_the_longest_papers_come_first_and_are_no_measure_of_the_rest(store: Store) -> None:
    job = add_job(store, ["x" * 9990, *(f"{place} " + "y" * 88 for place in range(9))])
    me, studio = store.coordinator(), worker(store)
    [lease] = store.must_take(me, studio).leases
    answered(store, me, studio, lease, NOW + 105, took=105.0)
    found = await left(store, job, NOW + 105)
    # Nine times as many prompts are left as took 105 s, but only 900 tokens to read and 450 to write.
    assert found == pytest.approx(9 + 45, rel=0.2)


async def test_a_pace_slower_than_the_speeds_promise_is_believed_more_with_every_answer(store: Store) -> None:
    job = add_job(store, ["x" * 990, "z" * 990], [f"question {number}" for number in range(40)])
    me, studio = store.coordinator(), worker(store)
    # A question and its answer should take 5.1 s, and take 10.
    for turn, lease in enumerate(store.must_take(me, studio, limit=40).leases):
        answered(store, me, studio, lease, NOW + 20 + 10 * turn, cached=990 if turn else 0)
    late = await left(store, job, NOW + 410)
    promised = 990 / 100 + 40 * 5.1
    assert late is not None
    assert promised * 1.5 < late < promised * 2


async def test_prompts_of_a_batch_have_the_pace_of_their_answers(store: Store) -> None:
    job = batch(store, "key", [f"Why {number}?" for number in range(10)])
    me, studio = store.coordinator(), worker(store)
    for turn in range(4):
        assert turn >= 3 or await left(store, job, NOW + turn) is None
        answered(store, me, studio, store.must_take(me, studio).leases[0], NOW + 1 + turn)
    assert await left(store, job, NOW + 4) == pytest.approx(6.0)


async def test_a_job_of_an_earlier_distllm_has_the_pace_of_its_answers(store: Store) -> None:
    job = add_job(store, [f"paper {number}" for number in range(10)])
    me, studio = store.coordinator(), worker(store)
    for turn in range(4):
        answered(store, me, studio, store.must_take(me, studio).leases[0], NOW + 1 + turn)
    store.rows("DELETE FROM job_tokens")
    assert await left(store, job, NOW + 4) == pytest.approx(6.0)
