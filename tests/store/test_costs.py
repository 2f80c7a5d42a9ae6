"""What reading cost a job: once is the least, whoever failed, came late or had it read before."""

from dataclasses import replace

import pytest

from distllm.domain.models import ErrorClass, Usage
from distllm.insights import Reading, reading
from distllm.store.attempts import Settlement
from distllm.store.control import retry_truncated
from distllm.store.reads import open_reader
from distllm.store.requests import add_requests, submit_batch
from tests.store.store_kit import NOW, Store, add_job, end
from tests.store.test_requests import asked, opened

QUESTIONS = ["findings", "limits", "method"]
PAPER = "x" * 490
"""With its question of 10 tokens a prompt of 500: 98 % of it are shared."""


def told(settlement: Settlement, read: int | None, cached: int | None, written: int = 7) -> Settlement:
    return replace(settlement, outcome=replace(settlement.outcome, usage=Usage(read, cached, written, 1.0, 2.0)))


def answer(store: Store, *cached: int | None) -> None:
    """Answer all that is ready in order, each prompt of 500 tokens with so many of them found cached."""
    me, worker = store.coordinator(), store.worker("studio")
    left = list(cached)
    while group := store.take(me, worker):
        for lease in group.leases:
            store.settle(told(end(store.send(me, worker, lease)), 500, left.pop(0)))
    assert not left


async def cost(store: Store, job: int) -> Reading | None:
    async with open_reader(store.place) as reader:
        return await reading(reader, job)


async def test_a_paper_that_stays_cached_is_read_once(store: Store) -> None:
    job = add_job(store, [PAPER], QUESTIONS)
    assert await cost(store, job) is None
    answer(store, 0, 490, 490)
    assert await cost(store, job) == Reading(read=520, found=980, least=520, untold=0)


async def test_a_paper_that_is_read_anew_for_each_question_costs_that_many_times(store: Store) -> None:
    job = add_job(store, [PAPER], QUESTIONS)
    answer(store, 0, 0, 0)
    found = await cost(store, job)
    assert found == Reading(read=1500, found=0, least=520, untold=0)
    assert found.ratio == pytest.approx(1500 / 520)


async def test_what_all_papers_begin_with_is_no_saving_of_theirs(store: Store) -> None:
    job = add_job(store, [PAPER, "y" * 490])
    answer(store, 0, 40)
    found = await cost(store, job)
    assert found is not None
    assert (found.read, found.least, found.ratio) == (960, 960, 1.0)


async def test_a_second_job_finds_the_paper_cached_and_costs_less_than_reading_it(store: Store) -> None:
    first = add_job(store, [PAPER])
    answer(store, 0)
    second = add_job(store, [PAPER], ["limits", "method"])
    answer(store, 490, 490)
    assert await cost(store, first) == Reading(read=500, found=0, least=500, untold=0)
    found = await cost(store, second)
    assert found == Reading(read=20, found=980, least=510, untold=0)
    assert found.ratio is not None
    assert found.ratio < 0.05


async def test_an_attempt_that_failed_after_it_had_read_counts_and_needed_nothing(store: Store) -> None:
    job = add_job(store, [PAPER])
    me, worker = store.coordinator(), store.worker("studio")
    lease = store.must_take(me, worker).leases[0]
    failed = told(end(store.send(me, worker, lease), ErrorClass.BROKEN), 500, 0)
    store.settle(failed)
    store.settle(failed)
    assert await cost(store, job) == Reading(read=500, found=0, least=0, untold=0)
    again = store.must_take(me, worker, now=failed.finished_at + 60).leases[0]
    store.settle(told(end(store.send(me, worker, again)), 500, 0))
    assert await cost(store, job) == Reading(read=1000, found=0, least=500, untold=0)


async def test_an_answer_that_came_too_late_was_read_for_nothing(store: Store) -> None:
    job = add_job(store, [PAPER])
    dead, worker = store.coordinator(), store.worker("studio")
    late = store.send(dead, worker, store.must_take(dead, worker).leases[0])
    me = store.reclaim()
    newer = store.send(me, worker, store.must_take(me, worker).leases[0])
    store.settle(told(end(late), 500, 0))
    store.settle(told(end(newer), 500, 490))
    assert await cost(store, job) == Reading(read=510, found=490, least=500, untold=0)


async def test_where_a_server_does_not_tell_what_was_cached_no_ratio_is_made_up(store: Store) -> None:
    job = add_job(store, [PAPER], QUESTIONS)
    answer(store, 0, None, 490)
    found = await cost(store, job)
    assert found == Reading(read=510, found=490, least=510, untold=1)
    assert found.ratio is None


async def test_a_retry_reads_a_paper_that_was_counted_once_already(store: Store) -> None:
    job = add_job(store, [PAPER])
    me, worker = store.coordinator(), store.worker("studio")
    cut = store.send(me, worker, store.must_take(me, worker).leases[0])
    store.settle(told(end(cut, finish_reason="length"), 500, 0))
    assert store.write(lambda tx: retry_truncated(tx, job, (), NOW)).again == 1
    answer(store, 0)
    found = await cost(store, job)
    assert found is not None
    assert found.read == 1000
    assert 500 < found.least < 600


async def test_answers_that_are_reused_cost_nothing_and_need_not_be_read_for(store: Store) -> None:
    add_job(store, [PAPER])
    answer(store, 0)
    same = add_job(store, [PAPER])
    assert await cost(store, same) is None
    assert store.rows("SELECT count(*) FROM job_tokens WHERE job_id = ?", same) == [(0,)]
    more = add_job(store, [PAPER, "y" * 300], ["findings", "limits"])
    asked = "asked, readings, reading_tokens, question_tokens"
    assert store.rows(f"SELECT {asked} FROM job_tokens WHERE job_id = ?", more) == [(3, 2, 790, 30)]
    answered = add_job(store, [PAPER, "z" * 300])
    assert store.rows(f"SELECT {asked} FROM job_tokens WHERE job_id = ?", answered) == [(1, 1, 300, 10)]


async def test_a_copy_of_a_paper_is_not_to_be_read_again(store: Store) -> None:
    job = add_job(store, [PAPER, PAPER], QUESTIONS)
    asked = "asked, readings, reading_tokens, question_tokens, begun_tokens"
    assert store.rows(f"SELECT {asked} FROM job_tokens WHERE job_id = ?", job) == [(3, 1, 490, 30, 0)]
    answer(store, 0, 490, 490)
    assert store.rows(f"SELECT {asked} FROM job_tokens WHERE job_id = ?", job) == [(3, 1, 490, 30, 490)]


async def test_prompts_of_a_batch_are_counted_by_the_system_message_that_they_share(store: Store) -> None:
    job, _ = opened(store, "key")
    new = [replace(asked("x" * 500 + word), prefix_hash="shared", reading_tokens=400) for word in ("Why?", "How?")]
    store.write(lambda tx: add_requests(tx, job, 0, new, (), NOW))
    store.write(lambda tx: submit_batch(tx, job, NOW))
    answer(store, 0, 400)
    found = await cost(store, job)
    assert found == Reading(read=600, found=400, least=600, untold=0)
