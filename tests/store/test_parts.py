"""Long papers: an answer that waits for its parts, as a count in the store."""

from dataclasses import replace

import pytest

from distllm.domain.models import ErrorClass
from distllm.domain.policy import Failed
from distllm.store.attempts import Sent
from distllm.store.failures import fail_unfit
from distllm.store.leases import Lease
from distllm.store.results import prove
from tests.store.store_kit import HUGE, MODEL, NOW, Store, add_job, end, split


@pytest.fixture
def sent_parts(store: Store) -> list[Sent]:
    """A prompt that waits for two parts, both in flight."""
    add_job(store, ["a long paper"])
    split(store, 1, 2)
    me, worker = store.coordinator(), store.worker("studio")
    leases: tuple[Lease, ...] = store.must_take(me, worker).leases
    assert [lease.parent_id for lease in leases] == [1, 1], "what waits is not leased"
    return [store.send(me, worker, lease) for lease in leases]


def test_what_waits_is_asked_when_its_last_part_is_done(store: Store, sent_parts: list[Sent]) -> None:
    me, worker = sent_parts[0].coordinator_id, sent_parts[0].worker_id
    store.settle(end(sent_parts[0]))
    assert store.prompt(1, "waits_for") == (1,)
    assert store.take(me, worker) is None
    store.settle(end(sent_parts[1]))
    assert [lease.prompt_id for lease in store.must_take(me, worker).leases] == [1]
    assert store.rows("SELECT total, leased FROM job_progress") == [(1, 1)]
    assert store.rows("SELECT total, done FROM part_progress") == [(2, 2)]
    assert store.rows("SELECT * FROM answers") == []


def test_a_part_reported_twice_is_waited_for_once(store: Store, sent_parts: list[Sent]) -> None:
    store.settle(end(sent_parts[0]))
    store.settle(end(sent_parts[0]))
    assert store.prompt(1, "waits_for") == (1,)


def test_a_stale_part_is_still_waited_for(store: Store, sent_parts: list[Sent]) -> None:
    me, worker = store.reclaim(), sent_parts[0].worker_id
    newer = store.must_take(me, worker).leases
    store.settle(end(sent_parts[0]), end(sent_parts[1]))
    assert store.prompt(1, "waits_for") == (2,)
    store.settle(*(end(store.send(me, worker, lease)) for lease in newer))
    assert store.prompt(1, "waits_for, state") == (0, "pending")


def test_a_part_that_fails_for_good_fails_what_waits_for_it(store: Store, sent_parts: list[Sent]) -> None:
    store.settle(end(sent_parts[0], ErrorClass.BROKEN, judged=Failed()))
    assert store.prompt(1, "state, error") == ("failed", "part 1 of 2: broken, says the server")
    assert store.value("SELECT finished_at FROM jobs") is None, "the other part is still asked"
    store.settle(end(sent_parts[1], now=NOW + 8))
    assert store.value("SELECT finished_at FROM jobs") == NOW + 8
    assert store.rows("SELECT prompt, error FROM failures") == [("findings", "part 1 of 2: broken, says the server")]


def test_a_part_that_may_be_tried_again_fails_nothing(store: Store, sent_parts: list[Sent]) -> None:
    store.settle(end(sent_parts[0], ErrorClass.BROKEN))
    assert store.prompt(1, "state, waits_for") == ("pending", 2)


def test_a_part_of_a_part_fails_both_that_wait_for_it(store: Store) -> None:
    add_job(store, ["a very long paper"])
    (middle,) = split(store, 1, 1)
    split(store, middle, 1)
    me, worker = store.coordinator(), store.worker("studio")
    lease = store.must_take(me, worker).leases[0]
    assert lease.parent_id == middle
    store.settle(end(store.send(me, worker, lease), ErrorClass.BROKEN, judged=Failed(), now=NOW + 4))
    assert store.prompt(1, "state, error") == ("failed", "part 1 of 1: broken, says the server")
    assert store.value("SELECT finished_at FROM jobs") == NOW + 4


def test_a_part_that_no_window_holds_fails_what_waits_for_it(store: Store) -> None:
    add_job(store, ["a long paper"])
    split(store, 1, 2)
    assert store.write(lambda tx: fail_unfit(tx, MODEL, HUGE, [1], NOW)) == 0
    assert store.write(lambda tx: fail_unfit(tx, MODEL, 20, [1], NOW)) == 2
    assert store.rows("SELECT DISTINCT state FROM prompts") == [("failed",)]
    assert store.value("SELECT finished_at FROM jobs") == NOW


def test_an_answer_is_not_proven_later_while_a_part_is_not(store: Store, sent_parts: list[Sent]) -> None:
    me, worker = sent_parts[0].coordinator_id, sent_parts[0].worker_id
    store.settle(*(replace(end(sent), proof="unproven") for sent in sent_parts))
    merge = store.send(me, worker, store.must_take(me, worker).leases[0])
    store.settle(replace(end(merge), proof="unproven"))
    store.write(lambda tx: prove(tx, [sent_parts[0], merge]))
    assert store.rows("SELECT proof FROM results WHERE prompt_id = 1") == [("unproven",)]
    store.write(lambda tx: prove(tx, [sent_parts[1], merge]))
    assert store.rows("SELECT DISTINCT proof FROM results") == [("proven",)]
