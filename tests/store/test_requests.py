"""Batches: prompts that bring their own request, found again by the key of their batch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from distllm.domain.models import ErrorClass, StoredRequest
from distllm.domain.policy import Failed
from distllm.store.control import request_cancel, retry_some, retry_truncated
from distllm.store.requests import NewBatch, NewRequest, add_requests, open_batch, submit_batch
from distllm.store.submissions import unfinished_builds
from tests.store.store_kit import MODEL, NOW, Store, end


def asked(text: str, max_tokens: int = 100) -> NewRequest:
    key = f"request {hashlib.sha256(text.encode()).hexdigest()}"
    body = StoredRequest(text, max_tokens, 0.0).to_json()
    return NewRequest(key, "", len(text), len(text) + max_tokens, max_tokens, body)


def opened(store: Store, key: str, digests: Sequence[str] = (), *, fresh: bool = False) -> tuple[int, bool]:
    params = {"temperature": 0.0, "max_tokens": 100}
    batch = NewBatch("a batch", MODEL, params, 0, key, fresh)
    return store.write(lambda tx: open_batch(tx, batch, digests, NOW))


def batch(store: Store, key: str, texts: Sequence[str], digests: Sequence[str] = (), *, fresh: bool = False) -> int:
    job, written = opened(store, key, digests, fresh=fresh)
    if not written:
        new = [asked(text) for text in texts]
        store.write(lambda tx: add_requests(tx, job, 0, new, digests, NOW))
        store.write(lambda tx: submit_batch(tx, job, NOW))
    return job


def answer_all(store: Store, digest: str | None = None, finish_reason: str = "stop") -> None:
    me, worker = store.coordinator(), store.worker("studio")
    while (group := store.take(me, worker)) is not None:
        for lease in group.leases:
            answer = f"answer {lease.prompt_id}"
            ended = end(store.send(me, worker, lease), answer=answer, finish_reason=finish_reason)
            store.settle(replace(ended, digest=digest))


def test_a_lease_carries_its_request(store: Store) -> None:
    batch(store, "k", ["What?"])
    [lease] = store.must_take(store.coordinator(), store.worker("studio")).leases
    assert lease.template_id is None
    assert lease.body is not None
    assert StoredRequest.from_json(lease.body) == StoredRequest("What?", 100, 0.0)
    assert (lease.needs, lease.max_tokens) == (105, 100)


def test_a_request_is_the_same_after_it_was_stored() -> None:
    turns = (("user", "When did it break?"), ("assistant", "In March."))
    for request in (StoredRequest("Who says so?", 7, 0.5, turns, 3), StoredRequest("Who?", 7, 0.5)):
        assert StoredRequest.from_json(request.to_json()) == request


def test_the_writing_of_a_batch_goes_on_where_it_stopped(store: Store) -> None:
    texts = [f"Question {n}?" for n in range(7)]
    job, written = opened(store, "k")
    assert not written
    store.write(lambda tx: add_requests(tx, job, 0, [asked(text) for text in texts[:3]], (), NOW))
    assert store.take(store.coordinator(), store.worker("studio")) is None, "it is not whole yet"
    assert store.write(unfinished_builds) == [], "nobody else has its prompts"
    assert opened(store, "k") == (job, False)
    for first, last in ((0, 2), (2, 5), (5, 7)):
        new = [asked(text) for text in texts[first:last]]
        store.write(lambda tx, first=first, new=new: add_requests(tx, job, first, new, (), NOW))
    store.write(lambda tx: submit_batch(tx, job, NOW))
    bodies = [StoredRequest.from_json(body).question for (body,) in store.rows("SELECT body FROM prompts ORDER BY id")]
    assert bodies == texts
    assert opened(store, "k") == (job, True)
    store.write(lambda tx: add_requests(tx, job, 0, [asked("late")], (), NOW))
    assert store.states(job) == {"pending": 7}


def test_the_same_batch_is_the_same_job_and_goes_on_if_it_was_paused(store: Store) -> None:
    job = batch(store, "k", ["a", "b"])
    store.rows("UPDATE jobs SET paused_at = ?", NOW)
    assert opened(store, "k") == (job, True)
    assert store.value("SELECT paused_at FROM jobs") is None
    assert opened(store, "other")[0] != job


def test_a_batch_that_was_cancelled_is_made_anew(store: Store) -> None:
    job = batch(store, "k", ["a"])
    store.write(lambda tx: request_cancel(tx, job, NOW))
    assert opened(store, "k")[0] != job
    store.rows("DELETE FROM jobs WHERE id <> ?", job)


@pytest.mark.parametrize(
    ("fleet", "same"), [(("old", "other"), True), (("new",), False), ((), False)], ids=["there", "changed", "unknown"]
)
def test_answers_of_weights_that_are_gone_are_not_given_again(store: Store, fleet: tuple[str, ...], same: bool) -> None:
    job = batch(store, "k", ["a", "b"])
    answer_all(store, digest="old")
    again = batch(store, "k", ["a", "b"], fleet)
    assert (again == job) is same
    assert store.states(again) == ({"done": 2} if same else {"pending": 2})


def test_another_batch_reuses_what_is_answered_whole_and_with_the_same_parameters(store: Store) -> None:
    first = batch(store, "k", ["a", "b"])
    answer_all(store)
    second = batch(store, "l", ["b", "c"])
    assert store.states(second) == {"done": 1, "pending": 1}
    assert store.rows("SELECT reused_from, answer FROM results WHERE attempt_id IS NULL") == [
        (first, store.value("SELECT answer FROM results WHERE prompt_id = 2"))
    ]
    assert store.states(batch(store, "m", ["a", "b"], fresh=True)) == {"pending": 2}
    longer = batch(store, "n", [])
    assert store.states(longer) == {}


def test_an_answer_that_was_cut_is_not_reused_and_can_be_retried_with_more_room(store: Store) -> None:
    first = batch(store, "k", ["a"])
    answer_all(store, finish_reason="length")
    assert store.states(batch(store, "l", ["a"])) == {"pending": 1}
    assert store.write(lambda tx: retry_truncated(tx, first, [], NOW)).again == 1
    assert store.rows("SELECT state, max_tokens, tokens FROM prompts WHERE job_id = ?", first) == [
        ("pending", 200, 201)
    ]


def test_what_failed_is_pending_again(store: Store) -> None:
    job = batch(store, "k", ["a"])
    me, worker = store.coordinator(), store.worker("studio")
    [lease] = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, lease), ErrorClass.BROKEN, judged=Failed()))
    assert store.states(job) == {"failed": 1}
    assert store.write(lambda tx: retry_some(tx, job, NOW)) == 1
    assert store.states(job) == {"pending": 1}
