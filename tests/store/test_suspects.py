"""What was in flight whenever somebody went down: asked alone, and failed if that is what they do."""

from distllm.domain.models import Ask, ErrorClass
from distllm.domain.policy import DEATHS_TO_CONDEMN, LOSSES_TO_SUSPECT, POISON
from distllm.store.fleet import retire
from distllm.store.leases import Group
from distllm.store.suspects import claim_suspect, next_suspect
from tests.store.store_kit import HUGE, MODEL, NOW, Store, add_job, end, split

LATER = NOW + 60
"""When every suspect has waited long enough for its next trial."""


def die_with(store: Store, worker: int, *, times: int, alone: bool = False) -> None:
    """Coordinators that die, each with the first prompt that it may send in flight."""
    for _ in range(times):
        me = store.coordinator()
        group = take_alone(store, me, worker) if alone else store.take(me, worker, limit=1)
        assert group is not None
        store.send(me, worker, group.leases[0])
        store.reclaim()


def take_alone(store: Store, me: int, *workers: int) -> Group | None:
    asks = [Ask(worker, {MODEL: HUGE}, 1) for worker in workers]
    suspect = store.write(lambda tx: next_suspect(tx, asks, LATER))
    return None if suspect is None else store.write(lambda tx: claim_suspect(tx, suspect, me, LATER))


def test_what_was_only_leased_had_no_part_in_a_death(store: Store) -> None:
    add_job(store, ["paper"], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    sent, _ = store.must_take(me, worker).leases
    store.send(me, worker, sent)
    store.reclaim()
    assert store.rows("SELECT state, losses FROM prompts ORDER BY id") == [("pending", 1), ("pending", 0)]


def test_after_three_deaths_a_prompt_is_leased_only_to_be_asked_alone(store: Store) -> None:
    add_job(store, ["paper"])
    worker = store.worker("studio")
    die_with(store, worker, times=LOSSES_TO_SUSPECT)
    me = store.coordinator()
    assert store.take(me, worker) is None
    group = take_alone(store, me, worker)
    assert group is not None
    assert group.leases[0].alone
    assert (group.document, group.model) == ("paper", MODEL)
    assert take_alone(store, me, worker) is None


def test_another_worker_than_the_last_is_tried_first(store: Store) -> None:
    add_job(store, ["paper"])
    last, other = store.worker("studio"), store.worker("mini")
    die_with(store, last, times=LOSSES_TO_SUSPECT)
    group = take_alone(store, store.coordinator(), last, other)
    assert group is not None
    assert group.worker_id == other


def test_five_deaths_alone_in_a_row_fail_a_prompt_and_end_its_job(store: Store) -> None:
    add_job(store, ["paper"])
    worker = store.worker("studio")
    die_with(store, worker, times=LOSSES_TO_SUSPECT)
    die_with(store, worker, times=DEATHS_TO_CONDEMN - 1, alone=True)
    assert store.prompt(1, "state, deaths_alone") == ("pending", DEATHS_TO_CONDEMN - 1)
    die_with(store, worker, times=1, alone=True)
    assert store.prompt(1, "state, error") == ("failed", POISON)
    assert store.rows("SELECT state FROM job_progress") == [("failed",)]
    assert store.rows("SELECT attempts, error FROM failures") == [(LOSSES_TO_SUSPECT + DEATHS_TO_CONDEMN, POISON)]


def test_a_death_without_any_suspect_in_flight_is_an_alibi_for_all(store: Store) -> None:
    add_job(store, ["paper"])
    worker = store.worker("studio")
    die_with(store, worker, times=LOSSES_TO_SUSPECT)
    die_with(store, worker, times=DEATHS_TO_CONDEMN - 1, alone=True)
    add_job(store, ["another"])
    die_with(store, worker, times=1)
    assert store.prompt(1, "state, losses, deaths_alone") == ("pending", LOSSES_TO_SUSPECT + DEATHS_TO_CONDEMN - 1, 0)
    die_with(store, worker, times=DEATHS_TO_CONDEMN - 1, alone=True)
    assert store.prompt(1, "state") == ("pending",)


def test_a_server_that_goes_down_without_a_suspect_is_an_alibi_too(store: Store) -> None:
    add_job(store, ["paper"])
    me, worker = store.coordinator(), store.worker("studio")
    store.rows("UPDATE prompts SET losses = 3, deaths_alone = 4")
    add_job(store, ["another"])
    [lease] = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, lease), ErrorClass.LOST))
    assert store.rows("SELECT losses, deaths_alone FROM prompts ORDER BY id") == [(3, 0), (1, 0)]


def test_a_coordinator_that_ended_in_order_is_no_alibi(store: Store) -> None:
    add_job(store, ["paper"])
    store.rows("UPDATE prompts SET losses = 3, deaths_alone = 4")
    me = store.coordinator()
    store.write(lambda tx: retire(tx, me, NOW))
    store.reclaim()
    assert store.prompt(1, "deaths_alone") == (4,)


def test_a_suspect_waits_longer_after_each_death(store: Store) -> None:
    add_job(store, ["paper"])
    worker = store.worker("studio")
    die_with(store, worker, times=LOSSES_TO_SUSPECT)
    waits = []
    for _ in range(DEATHS_TO_CONDEMN - 1):
        die_with(store, worker, times=1, alone=True)
        waits.append(store.prompt(1, "available_at")[0] - NOW)
    assert waits == [1, 2, 4, 8]


def test_a_part_that_coordinators_die_of_fails_what_waits_for_it(store: Store) -> None:
    add_job(store, ["paper"])
    split(store, 1, 1)
    worker = store.worker("studio")
    die_with(store, worker, times=LOSSES_TO_SUSPECT)
    die_with(store, worker, times=DEATHS_TO_CONDEMN, alone=True)
    assert store.rows("SELECT state, error FROM prompts ORDER BY id") == [
        ("failed", f"part 1 of 1: {POISON}"),
        ("failed", POISON),
    ]
    assert store.rows("SELECT state FROM job_progress") == [("failed",)]


def test_a_suspect_that_nobody_here_can_take_is_none(store: Store) -> None:
    add_job(store, ["paper"])
    worker = store.worker("studio")
    die_with(store, worker, times=LOSSES_TO_SUSPECT)
    for windows in ({"another": HUGE}, {MODEL: 10}):
        asks = [Ask(worker, windows, 1)]
        assert store.write(lambda tx, asks=asks: next_suspect(tx, asks, LATER)) is None
