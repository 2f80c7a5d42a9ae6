"""Who may send a prompt: what a seat gets, and what comes back from a coordinator that died."""

from collections.abc import Callable

from distllm.domain.models import Ask, ErrorClass
from distllm.domain.policy import LONGEST_WAIT_SECONDS
from distllm.store.claims import claim
from distllm.store.leases import reclaim, release, release_strangers
from tests.store.store_kit import MAX_TOKENS, MODEL, NOW, QUESTION_TOKENS, Store, add_job, end, split

AROUND = QUESTION_TOKENS + MAX_TOKENS


def test_each_prompt_is_leased_once(store: Store) -> None:
    job = add_job(store, [f"paper {place}" for place in range(6)], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    seen: list[int] = []
    while (group := store.take(me, worker)) is not None:
        seen += [lease.prompt_id for lease in group.leases]
    assert sorted(seen) == list(range(1, 13))
    assert store.states(job) == {"leased": 12}
    assert store.rows("SELECT DISTINCT lease, holder, worker_id FROM prompts") == [(1, me, worker)]
    assert store.rows("SELECT state FROM job_progress") == [("running",)]


def test_a_seat_gets_one_reading_and_all_jobs_questions_about_it(store: Store) -> None:
    first = add_job(store, ["a long paper", "a paper"], ["findings", "limits"])
    second = add_job(store, ["a long paper"], ["strengths"])
    group = store.must_take(store.coordinator(), store.worker("studio"))
    assert (group.document, group.model, group.system) == ("a long paper", MODEL, None)
    assert [lease.job_id for lease in group.leases] == [first, first, second]
    assert {lease.needs for lease in group.leases} == {len("a long paper") + AROUND}
    assert store.rows("SELECT worker_id FROM readings ORDER BY id") == [(group.worker_id,), (None,)]


def test_a_seat_gets_no_more_prompts_than_it_wants(store: Store) -> None:
    add_job(store, ["a paper"], ["findings", "limits", "strengths"])
    me, worker = store.coordinator(), store.worker("studio")
    assert len(store.must_take(me, worker, limit=2).leases) == 2
    assert len(store.must_take(me, worker, limit=2).leases) == 1


def test_readings_on_other_seats_are_left_out_unless_they_may_be_shared(store: Store) -> None:
    add_job(store, ["a paper"], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    group = store.must_take(me, worker, limit=1)
    assert store.take(me, worker, held=[group.reading_id]) is None
    assert store.must_take(me, worker, held=[group.reading_id], shared=True).reading_id == group.reading_id


def test_seats_that_ask_together_get_different_readings(store: Store) -> None:
    add_job(store, ["one", "two", "three"], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    asks = [Ask(worker, {MODEL: 999}, 1) for _ in range(4)]
    groups = store.write(lambda tx: claim(tx, asks, [], me, NOW))
    assert len({group.reading_id for group in groups}) == 3


def test_a_seat_goes_on_with_its_reading_before_it_gets_another(store: Store) -> None:
    add_job(store, ["a paper", "a much longer paper"], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    short = store.must_take(me, worker, limit=1, windows={MODEL: len("a paper") + AROUND})
    assert short.document == "a paper"
    again = store.must_take(me, worker, reading=short.reading_id, held=[short.reading_id])
    assert again.document == "a paper"
    assert store.must_take(me, worker, reading=short.reading_id).document == "a much longer paper"


def test_the_longest_reading_that_fits_comes_first(store: Store) -> None:
    add_job(store, ["x" * 10, "x" * 1000, "x" * 100])
    me, worker = store.coordinator(), store.worker("studio")
    small = store.must_take(me, worker, windows={MODEL: 100 + AROUND})
    assert len(small.document or "") == 100
    assert [len(store.must_take(me, worker).document or "") for _ in range(2)] == [1000, 10]


def test_a_window_that_is_too_small_by_one_token_gets_nothing(store: Store) -> None:
    add_job(store, ["x" * 100])
    me, worker = store.coordinator(), store.worker("studio")
    assert store.take(me, worker, windows={MODEL: 99 + AROUND}) is None
    assert store.take(me, worker, windows={"qwen-4b": 9999}) is None
    assert store.take(me, worker, windows={MODEL: 100 + AROUND}) is not None


def test_the_higher_priority_comes_first(store: Store) -> None:
    add_job(store, ["x" * 1000])
    urgent = add_job(store, ["x" * 10], priority=5)
    me, worker = store.coordinator(), store.worker("studio")
    assert [lease.job_id for lease in store.must_take(me, worker).leases] == [urgent]


def test_jobs_of_equal_priority_take_turns(store: Store) -> None:
    for job in range(3):
        add_job(store, [f"paper {place} of {job}" for place in range(3)])
    me, worker = store.coordinator(), store.worker("studio")
    served = [store.must_take(me, worker, now=NOW + turn).leases[0].job_id for turn in range(9)]
    assert served == [1, 2, 3] * 3


def test_jobs_take_turns_also_among_seats_that_ask_at_once(store: Store) -> None:
    for job in range(2):
        add_job(store, [f"paper {place} of {job}" for place in range(8)])
    me, worker = store.coordinator(), store.worker("studio")
    groups = store.write(lambda tx: claim(tx, [Ask(worker, {MODEL: 9999}, 1)] * 8, [], me, NOW))
    served = [group.leases[0].job_id for group in groups]
    assert (served.count(1), served.count(2)) == (4, 4)


def test_jobs_that_have_nothing_for_a_worker_do_not_keep_the_others_from_it(store: Store) -> None:
    for job in range(20):
        add_job(store, [f"{job}" + "x" * 5000], priority=1)
    add_job(store, ["a short paper"])
    group = store.take(store.coordinator(), store.worker("small"), windows={MODEL: 1000})
    assert group is not None


def test_a_paused_a_cancelled_and_a_finished_job_get_no_lease(store: Store) -> None:
    paused, cancelled = add_job(store, ["one"]), add_job(store, ["two"])
    store.rows("UPDATE jobs SET paused_at = ? WHERE id = ?", NOW, paused)
    store.rows("UPDATE jobs SET cancel_requested_at = ? WHERE id = ?", NOW, cancelled)
    me, worker = store.coordinator(), store.worker("studio")
    assert store.take(me, worker) is None
    assert store.take(me, worker, reading=1) is None
    store.rows("UPDATE jobs SET paused_at = NULL WHERE id = ?", paused)
    group = store.must_take(me, worker)
    store.settle(end(store.send(me, worker, group.leases[0])))
    assert store.take(me, worker, reading=1) is None


def test_what_failed_on_a_worker_is_left_to_others_for_its_patience(store: Store) -> None:
    add_job(store, ["a paper"])
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    lease = store.must_take(me, here).leases[0]
    store.settle(end(store.send(me, here, lease), ErrorClass.BROKEN))
    due = store.prompt(lease.prompt_id, "available_at")[0]
    assert due > NOW + 3
    assert store.take(me, there, now=due - 0.01, patience=60) is None, "before its backoff it is nobody's"
    assert store.take(me, here, now=due + 59, patience=60) is None
    assert store.take(me, here, now=due + 60, patience=60) is not None


def test_what_failed_on_a_worker_is_anothers_as_soon_as_it_is_due(store: Store) -> None:
    add_job(store, ["a paper"])
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    lease = store.must_take(me, here).leases[0]
    store.settle(end(store.send(me, here, lease), ErrorClass.BROKEN))
    due = store.prompt(lease.prompt_id, "available_at")[0]
    assert store.must_take(me, there, now=due, patience=60).leases[0].failures == 1


def test_what_a_worker_has_refused_is_never_offered_to_it_again(store: Store) -> None:
    add_job(store, ["a paper"], ["findings", "limits"])
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    lease = store.must_take(me, here, limit=1).leases[0]
    store.settle(end(store.send(me, here, lease), ErrorClass.INPUT, others=(there,)))
    later = NOW + 1e6
    assert [each.prompt_id for each in store.must_take(me, here, now=later).leases] == [2]
    assert store.take(me, here, now=later) is None
    again = store.must_take(me, there, now=later).leases[0]
    assert (again.prompt_id, again.number, again.failures) == (lease.prompt_id, 2, 0)


def test_a_lease_that_was_not_sent_goes_back_without_a_charge(store: Store) -> None:
    job = add_job(store, ["a paper"], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    group = store.must_take(me, worker)
    store.write(lambda tx: release(tx, group.leases[:1]))
    assert store.states(job) == {"leased": 1, "pending": 1}
    store.write(lambda tx: release(tx, group.leases[:1]))
    assert store.prompt(1, "state, failures, losses, holder") == ("pending", 0, 0, None)
    assert store.must_take(me, worker).leases[0].number == 2


def test_an_older_lease_does_not_give_back_a_newer_one(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    old = store.must_take(me, worker)
    store.write(lambda tx: release(tx, old.leases))
    store.must_take(me, worker)
    store.write(lambda tx: release(tx, old.leases))
    assert store.prompt(1, "state, lease") == ("leased", 2)


def test_a_new_coordinator_takes_back_all_leases_of_the_dead_and_none_of_its_own(store: Store) -> None:
    job = add_job(store, ["one", "two", "three", "four"])
    first, worker = store.coordinator(), store.worker("studio")
    sent = store.send(first, worker, store.must_take(first, worker).leases[0])
    second = store.coordinator()
    store.must_take(second, worker)
    me = store.coordinator()
    mine = store.must_take(me, worker).leases[0]
    open_attempt = store.send(me, worker, mine)
    assert store.write(lambda tx: reclaim(tx, me, NOW + 7)) == 2
    assert store.states(job) == {"pending": 3, "leased": 1}
    assert store.prompt(sent.lease.prompt_id, "state, losses, failures, available_at") == ("pending", 1, 0, NOW + 7)
    assert store.prompt(mine.prompt_id, "state, holder, losses") == ("leased", me, 0)
    outcomes = dict(store.rows("SELECT id, outcome FROM attempts"))
    assert outcomes == {sent.id: "lost", open_attempt.id: None}
    assert store.write(lambda tx: reclaim(tx, me, NOW + 8)) == 0


def test_parts_and_whole_answers_are_taken_back_each_in_their_own_counter(store: Store) -> None:
    job = add_job(store, ["a paper"], ["findings", "limits"])
    split(store, 1, 3)
    me, worker = store.coordinator(), store.worker("studio")
    assert len(store.must_take(me, worker).leases) == 4
    store.reclaim()
    assert store.states(job) == {"pending": 5}


def test_a_lease_that_its_coordinator_does_not_know_goes_back(store: Store) -> None:
    add_job(store, ["one", "two"])
    me, worker = store.coordinator(), store.worker("studio")
    known, stranger = (store.must_take(me, worker).leases[0] for _ in range(2))
    store.write(lambda tx: release_strangers(tx, me, {(known.prompt_id, known.number)}))
    assert store.prompt(known.prompt_id, "state") == ("leased",)
    assert store.prompt(stranger.prompt_id, "state, losses") == ("pending", 0)


def test_two_connections_that_claim_in_turn_never_get_the_same_prompt(
    store: Store, second_connection: Callable[[], Store]
) -> None:
    add_job(store, [f"paper {place}" for place in range(10)])
    me, worker = store.coordinator(), store.worker("studio")
    seats = [store, second_connection()]
    taken = [seats[turn % 2].must_take(me, worker, now=NOW + turn).leases[0].prompt_id for turn in range(10)]
    assert sorted(taken) == list(range(1, 11))


def test_a_clock_that_was_set_back_by_a_day_makes_no_prompt_wait_for_it(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    day, later = 86_400.0, NOW + LONGEST_WAIT_SECONDS
    store.rows("UPDATE prompts SET failures = 1, worker_id = ?, available_at = ?", worker, later - 1)
    assert store.take(me, worker, patience=15.0) is None
    store.rows("UPDATE prompts SET available_at = ?", NOW + day)
    assert store.must_take(me, worker, patience=15.0).leases[0].failures == 1
