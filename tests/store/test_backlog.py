"""What nobody has taken yet, as placing sees it."""

import pytest

from distllm.balancer.breaker import BreakerState
from distllm.domain.models import Health, Paper
from distllm.store import backlog as backlogs
from distllm.store.backlog import backlog
from distllm.store.control import pause
from distllm.store.fleet import note_health
from tests.store.store_kit import MODEL, NOW, Store, add_job, end, split


def waiting(store: Store) -> list[Paper]:
    return store.write(lambda tx: backlog(tx, MODEL))


def test_readings_that_wait_are_told_with_their_prompts_the_longest_first(store: Store) -> None:
    add_job(store, ["x" * 50, "x" * 500], ["findings", "limits"])
    assert waiting(store) == [Paper(500, 2, 610), Paper(50, 2, 160)]


def test_what_a_server_counted_is_better_than_an_estimate(store: Store) -> None:
    add_job(store, ["paper"], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    [lease] = store.must_take(me, worker, limit=1).leases
    store.settle(end(store.send(me, worker, lease)))
    assert waiting(store) == [Paper(500, 1, 115)]


def test_what_is_leased_paused_or_waits_for_parts_is_nobodys_to_take(store: Store) -> None:
    one = add_job(store, ["one", "two and more"])
    split(store, 1, 1)
    add_job(store, ["three"])
    assert [paper.prompts for paper in waiting(store)] == [1, 1, 1]
    store.must_take(store.coordinator(), store.worker("studio"), limit=1)
    assert len(waiting(store)) == 2
    store.write(lambda tx: pause(tx, one, NOW))
    assert len(waiting(store)) <= 1


def test_while_much_waits_the_end_is_too_far_to_look_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(store, ["one", "two", "three"])
    monkeypatch.setattr(backlogs, "MOST_PROMPTS", 2)
    assert waiting(store) == []
    monkeypatch.setattr(backlogs, "MOST_PROMPTS", 3)
    assert len(waiting(store)) == 3


def test_with_many_workers_the_end_is_looked_at_sooner(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(store, ["one", "two", "three"])
    monkeypatch.setattr(backlogs, "MOST_PROMPTS", 1)
    monkeypatch.setattr(backlogs, "MOST_FOR_EACH_WORKER", 1)
    now = NOW
    for number in range(2):
        worker = store.worker(f"host{number}")
        store.write(lambda tx, worker=worker: note_health(tx, worker, Health(healthy=True), BreakerState.CLOSED, now))
    assert waiting(store) == []
    worker = store.worker("host2")
    store.write(lambda tx: note_health(tx, worker, Health(healthy=False), BreakerState.CLOSED, now))
    assert waiting(store) == []
    store.write(lambda tx: note_health(tx, worker, Health(healthy=True), BreakerState.CLOSED, now))
    assert len(waiting(store)) == 3
