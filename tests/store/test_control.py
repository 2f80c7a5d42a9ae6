"""Pausing, cancelling and retrying, in the store."""

import pytest

from distllm.domain.models import ErrorClass, Health, Offer
from distllm.domain.policy import Failed
from distllm.store import control
from distllm.store.control import (
    Room,
    cancel_some,
    go_on,
    pause,
    request_cancel,
    retry_some,
    retry_truncated,
    unfinished_cancels,
)
from distllm.store.fleet import note_health
from distllm.store.submissions import build_prompts, create_job
from tests.store.store_kit import MAX_TOKENS, MODEL, NOW, QUESTION_TOKENS, Store, add_job, end, request, split


def cancel(store: Store, job: int) -> None:
    assert store.write(lambda tx: request_cancel(tx, job, NOW))
    while store.write(lambda tx: cancel_some(tx, job, NOW)):
        pass


def state(store: Store, job: int) -> str:
    return str(store.value("SELECT state FROM job_progress WHERE job_id = ?", job))


def answer_one(store: Store, reason: str = "stop", error: ErrorClass | None = None) -> int:
    me, worker = store.coordinator(), store.worker("studio")
    [lease] = store.must_take(me, worker, limit=1).leases
    judged = None if error is None else Failed()
    store.settle(end(store.send(me, worker, lease), error, finish_reason=reason, judged=judged))
    return lease.prompt_id


def test_a_paused_job_is_left_alone_until_it_goes_on(store: Store) -> None:
    job, me, worker = add_job(store, ["one"]), store.coordinator(), store.worker("studio")
    assert store.write(lambda tx: pause(tx, job, NOW))
    assert not store.write(lambda tx: pause(tx, job, NOW))
    assert state(store, job) == "paused"
    assert store.take(me, worker) is None
    assert store.write(lambda tx: go_on(tx, [job]))
    assert not store.write(lambda tx: go_on(tx, [job]))
    store.must_take(me, worker)


def test_cancelling_ends_what_waits_and_what_is_in_flight_and_keeps_what_is_answered(store: Store) -> None:
    job = add_job(store, ["one", "two", "three"])
    answer_one(store)
    me, worker = store.coordinator(), store.worker("studio")
    store.must_take(me, worker, limit=1)
    cancel(store, job)
    assert store.states(job) == {"done": 1, "cancelled": 2}
    assert state(store, job) == "cancelled"


def test_an_answer_that_comes_after_the_cancelling_is_stale(store: Store) -> None:
    job, me, worker = add_job(store, ["one"]), store.coordinator(), store.worker("studio")
    [lease] = store.must_take(me, worker).leases
    sent = store.send(me, worker, lease)
    cancel(store, job)
    assert store.settle(end(sent)) == 1
    assert store.rows("SELECT outcome, answer FROM attempts") == [("stale", "forty-two")]
    assert store.states(job) == {"cancelled": 1}


def test_an_answer_that_was_committed_first_is_kept(store: Store) -> None:
    job = add_job(store, ["one"])
    answer_one(store)
    assert not store.write(lambda tx: request_cancel(tx, job, NOW))
    assert state(store, job) == "completed"


def test_a_job_that_is_being_built_is_built_no_further_once_it_is_cancelled(store: Store) -> None:
    job = store.write(lambda tx: create_job(tx, request(["one.txt"]), NOW))
    cancel(store, job)
    assert state(store, job) == "cancelled"
    assert store.write(lambda tx: build_prompts(tx, job, NOW))
    assert store.states(job) == {}


def test_a_large_job_is_cancelled_in_steps_that_any_process_can_go_on_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CHUNK_PROMPTS", 2)
    job = add_job(store, [f"paper {number}" for number in range(5)])
    assert store.write(lambda tx: request_cancel(tx, job, NOW))
    assert store.write(lambda tx: cancel_some(tx, job, NOW)) == 2
    assert store.write(unfinished_cancels) == [job]
    assert store.take(store.coordinator(), store.worker("studio")) is None
    while store.write(lambda tx: cancel_some(tx, job, NOW)):
        pass
    assert store.write(unfinished_cancels) == []
    assert store.states(job) == {"cancelled": 5}


def test_what_waits_for_parts_is_cancelled_with_them(store: Store) -> None:
    job = add_job(store, ["one"])
    split(store, 1, 2)
    cancel(store, job)
    assert store.states(job) == {"cancelled": 3}


def test_retry_gives_what_failed_a_new_start(store: Store) -> None:
    job = add_job(store, ["one", "two"])
    failed = answer_one(store, error=ErrorClass.BROKEN)
    answer_one(store)
    assert state(store, job) == "failed"
    assert store.write(lambda tx: retry_some(tx, job, NOW)) == 1
    assert store.write(lambda tx: retry_some(tx, job, NOW)) == 0
    assert store.prompt(failed, "state, failures, error") == ("pending", 0, None)
    assert state(store, job) == "running"
    answer_one(store)
    assert state(store, job) == "completed"


def test_a_worker_that_refused_a_prompt_may_have_it_again_after_a_retry(store: Store) -> None:
    job, me, worker = add_job(store, ["one"]), store.coordinator(), store.worker("studio")
    [lease] = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, lease), ErrorClass.INPUT, others=(worker,)))
    assert store.states(job) == {"failed": 1}
    store.write(lambda tx: retry_some(tx, job, NOW))
    store.must_take(me, worker)


def test_an_answer_that_was_cut_is_asked_for_again_with_twice_the_room(store: Store) -> None:
    job = add_job(store, ["one", "two"])
    cut = answer_one(store, reason="length")
    answer_one(store)
    assert store.write(lambda tx: retry_truncated(tx, job, [], NOW)) == Room(again=1, left=0)
    assert store.prompt(cut, "state, max_tokens, tokens") == (
        "pending",
        2 * MAX_TOKENS,
        3 + QUESTION_TOKENS + 2 * MAX_TOKENS,
    )
    assert store.value("SELECT answer FROM attempts WHERE prompt_id = ?", cut) == "forty-two"
    [lease] = store.must_take(store.coordinator(), store.worker("studio")).leases
    assert lease.max_tokens == 2 * MAX_TOKENS


def test_an_answer_without_room_for_more_stays_as_it_is(store: Store) -> None:
    job = add_job(store, ["one"])
    prompt = answer_one(store, reason="length")
    needs = 3 + QUESTION_TOKENS + MAX_TOKENS
    worker = store.worker("studio")
    offers = (Offer("served-name", needs), Offer("other-model", 99_999))
    store.write(lambda tx: note_health(tx, worker, Health(True, offers), "closed", NOW))
    assert store.write(lambda tx: retry_truncated(tx, job, ["served-name"], NOW)) == Room(again=0, left=1)
    assert store.states(job) == {"done": 1}
    offers = (Offer(MODEL, needs + 7),)
    store.write(lambda tx: note_health(tx, worker, Health(True, offers), "closed", NOW))
    assert store.write(lambda tx: retry_truncated(tx, job, ["served-name"], NOW)) == Room(again=1, left=0)
    assert store.prompt(prompt, "max_tokens") == (MAX_TOKENS + 7,)


@pytest.mark.parametrize("again", ["failed", "cut"])
def test_nothing_of_a_job_that_was_cancelled_meanwhile_is_put_back(store: Store, again: str) -> None:
    job = add_job(store, ["a paper", "another"])
    if again == "failed":
        answer_one(store, error=ErrorClass.BROKEN)
    else:
        answer_one(store, reason="length")
    cancel(store, job)
    before = store.states(job)
    assert store.write(lambda tx: retry_some(tx, job, NOW)) == 0
    assert store.write(lambda tx: retry_truncated(tx, job, (), NOW)) == Room(0, 0)
    assert store.states(job) == before
    assert state(store, job) == "cancelled"
    assert store.write(unfinished_cancels) == []
