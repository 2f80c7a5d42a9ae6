"""How attempts end: one result a prompt, and nothing moves but under the newest lease."""

from dataclasses import replace
from itertools import product

from distllm.domain.models import ErrorClass
from distllm.domain.policy import Failed
from distllm.store.failures import fail_unfit
from distllm.store.leases import release
from distllm.store.results import prove
from tests.store.store_kit import MAX_TOKENS, MODEL, NOW, QUESTION_TOKENS, Store, add_job, end


def everything(store: Store) -> list[list[tuple[object, ...]]]:
    tables = ("jobs", "prompts", "attempts", "results", "job_counters", "workers", "refusals", "readings")
    return [store.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def test_an_answer_is_the_one_result_of_its_prompt(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    sent = store.send(me, worker, store.must_take(me, worker).leases[0])
    assert store.settle(end(sent, answer="forty-two")) == 0
    assert store.prompt(1, "state, holder, finished_at, error") == ("done", None, NOW + 3, None)
    told = "document, prompt, answer, model, worker, attempts, finish_reason, proof, prompt_tokens, parts, seconds"
    assert store.rows(f"SELECT {told} FROM answers") == [
        ("0.txt", "findings", "forty-two", MODEL, "studio", 1, "stop", "proven", 500, 1, 3.0)
    ]
    assert store.rows("SELECT outcome, answer, cached_tokens FROM attempts") == [("done", None, 400)]
    assert store.rows("SELECT tokens_read, read_at FROM readings") == [(500, NOW + 3)]


def test_an_attempt_that_ended_before_it_was_written_is_written_whole(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    sent = store.unwritten(me, worker, store.must_take(me, worker).leases[0])
    store.settle(end(sent))
    store.send(me, worker, sent.lease)
    assert store.rows("SELECT outcome FROM attempts WHERE id = ?", sent.id) == [("done",)]


def test_a_stale_answer_is_kept_as_an_attempt_and_changes_nothing(store: Store) -> None:
    job = add_job(store, ["a paper"])
    dead, worker = store.coordinator(), store.worker("studio")
    late = store.send(dead, worker, store.must_take(dead, worker).leases[0])
    me = store.reclaim()
    newer = store.send(me, worker, store.must_take(me, worker).leases[0])
    assert store.settle(end(late, answer="late")) == 1
    assert store.states(job) == {"leased": 1}
    assert store.rows("SELECT outcome, answer FROM attempts WHERE id = ?", late.id) == [("stale", "late")]
    assert store.settle(end(newer, answer="in time")) == 0
    assert store.rows("SELECT answer, attempts FROM answers") == [("in time", 2)]


def test_a_late_answer_is_accepted_while_its_lease_is_the_newest(store: Store) -> None:
    add_job(store, ["a paper"])
    dead, worker = store.coordinator(), store.worker("studio")
    late = store.send(dead, worker, store.must_take(dead, worker).leases[0])
    me = store.reclaim()
    assert store.settle(end(late, answer="late")) == 0
    assert store.rows("SELECT answer FROM answers") == [("late",)]
    assert store.rows("SELECT outcome FROM attempts") == [("done",)]
    assert store.take(me, worker) is None


def test_a_late_failure_does_not_touch_a_prompt_that_was_taken_back(store: Store) -> None:
    add_job(store, ["a paper"])
    dead, worker = store.coordinator(), store.worker("studio")
    late = store.send(dead, worker, store.must_take(dead, worker).leases[0])
    store.reclaim()
    store.settle(end(late, ErrorClass.BROKEN))
    assert store.prompt(1, "state, failures, error") == ("pending", 0, None)
    assert store.rows("SELECT outcome FROM attempts") == [("broken",)]


def test_the_first_of_two_answers_under_one_lease_settles_it(store: Store) -> None:
    add_job(store, ["a paper"])
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    lease = store.must_take(me, here).leases[0]
    first, second = store.send(me, here, lease), store.send(me, there, lease)
    assert store.settle(end(second, answer="second"), end(first, answer="first")) == 1
    assert store.rows("SELECT answer, worker FROM answers") == [("second", "there")]
    assert store.rows("SELECT outcome, answer FROM attempts ORDER BY id") == [("stale", "first"), ("done", None)]


def test_what_is_stopped_since_the_other_has_answered_is_stale_and_no_work_of_its_worker(store: Store) -> None:
    add_job(store, ["a paper"])
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    lease = store.must_take(me, here).leases[0]
    first, second = store.send(me, here, lease), store.send(me, there, lease)
    store.settle(end(second), end(first, ErrorClass.RELEASED))
    assert store.rows("SELECT outcome, answer FROM attempts ORDER BY id") == [("stale", None), ("done", None)]
    assert store.rows("SELECT worker, requests, failed FROM worker_stats ORDER BY 1") == [
        ("here", 0, 0),
        ("there", 1, 0),
    ]


def test_a_lease_with_two_attempts_goes_back_with_the_last_and_is_charged_once_for_both(store: Store) -> None:
    kinds = (ErrorClass.BROKEN, ErrorClass.LOST, ErrorClass.BUSY, ErrorClass.RELEASED)
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    for place, kinds_of_two in enumerate(product(kinds, kinds)):
        job = add_job(store, [f"a paper {place}"])
        lease = store.must_take(me, here).leases[0]
        ends = [
            end(store.send(me, worker, lease), kind) for worker, kind in zip((here, there), kinds_of_two, strict=True)
        ]
        store.settle(ends[0])
        assert store.prompt(lease.prompt_id, "state, failures, losses") == ("leased", 0, 0)
        store.settle(ends[1])
        charged = (int(ErrorClass.BROKEN in kinds_of_two), int(ErrorClass.LOST in kinds_of_two))
        assert store.prompt(lease.prompt_id, "state, failures, losses") == ("pending", *charged), kinds_of_two
        assert store.states(job) == {"pending": 1}
        store.rows("UPDATE jobs SET paused_at = ? WHERE id = ?", NOW, job)


def test_two_attempts_under_one_lease_that_end_before_either_is_written_are_charged_once_too(store: Store) -> None:
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    for place, kinds in enumerate([(ErrorClass.RELEASED, ErrorClass.BROKEN), (ErrorClass.BROKEN, ErrorClass.BROKEN)]):
        job = add_job(store, [f"a paper {place}"])
        lease = store.must_take(me, here).leases[0]
        store.settle(
            *(end(store.unwritten(me, worker, lease), kind) for worker, kind in zip((here, there), kinds, strict=True))
        )
        assert store.prompt(lease.prompt_id, "state, failures") == ("pending", 1), kinds
        assert store.rows("SELECT outcome FROM attempts WHERE prompt_id = ?", lease.prompt_id) == [
            (kind.value,) for kind in kinds
        ]
        store.rows("UPDATE jobs SET paused_at = ? WHERE id = ?", NOW, job)


def test_a_report_made_twice_changes_nothing_the_second_time(store: Store) -> None:
    add_job(store, ["one", "two", "three", "four", "five"])
    me, worker = store.coordinator(), store.worker("studio")
    kinds = (None, ErrorClass.BROKEN, ErrorClass.BUSY, ErrorClass.INPUT, ErrorClass.RELEASED)
    ends = [end(store.send(me, worker, store.must_take(me, worker).leases[0]), kind) for kind in kinds]
    store.settle(*ends)
    before = everything(store)
    store.settle(*ends)
    assert everything(store) == before


def test_a_lost_attempt_reported_twice_counts_once_for_its_worker(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    ended = end(store.send(me, worker, store.must_take(me, worker).leases[0]), ErrorClass.LOST)
    store.settle(ended)
    before = everything(store)
    store.settle(ended)
    assert everything(store) == before


def test_only_broken_attempts_cost_a_retry(store: Store) -> None:
    charged = {}
    for place, kind in enumerate(ErrorClass):
        job = add_job(store, [f"a paper for {kind}"])
        me, worker, other = store.coordinator(), store.worker("studio"), store.worker("other")
        lease = store.must_take(me, worker, now=NOW + place).leases[0]
        store.settle(end(store.send(me, worker, lease), kind, others=(other,)))
        state, failures, holder, error = store.prompt(lease.prompt_id, "state, failures, holder, error")
        assert (state, holder, error) == ("pending", None, f"{kind}, says the server")
        charged[kind] = failures
        store.rows("UPDATE jobs SET paused_at = ? WHERE id = ?", NOW, job)
    assert {kind for kind, failures in charged.items() if failures} == {ErrorClass.BROKEN}


def test_a_prompt_fails_when_its_retries_are_used_up(store: Store) -> None:
    job = add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    for attempt in range(4):
        now = NOW + 1000 * attempt
        lease = store.must_take(me, worker, now=now).leases[0]
        assert (lease.failures, lease.number) == (attempt, attempt + 1)
        store.settle(end(store.send(me, worker, lease, now), ErrorClass.BROKEN, now=now))
    assert store.prompt(1, "state, failures, finished_at") == ("failed", 4, NOW + 3000)
    assert store.rows("SELECT document, prompt, attempts, worker, error FROM failures") == [
        ("0.txt", "findings", 4, "studio", "broken, says the server")
    ]
    assert store.rows("SELECT state, failed FROM job_progress WHERE job_id = ?", job) == [("failed", 1)]


def test_what_every_willing_worker_has_refused_fails_with_the_error(store: Store) -> None:
    add_job(store, ["a paper"])
    me, here, there = store.coordinator(), store.worker("here"), store.worker("there")
    first = store.must_take(me, here).leases[0]
    store.settle(end(store.send(me, here, first), ErrorClass.INPUT, others=(here, there)))
    assert store.prompt(1, "state") == ("pending",)
    second = store.must_take(me, there, now=NOW + 9).leases[0]
    store.settle(end(store.send(me, there, second), ErrorClass.INPUT, others=(here, there)))
    assert store.prompt(1, "state, failures, error") == ("failed", 0, "input, says the server")


def test_a_job_ends_exactly_with_its_last_prompt(store: Store) -> None:
    add_job(store, ["one", "two", "three"])
    me, worker = store.coordinator(), store.worker("studio")
    leases = [store.must_take(me, worker).leases[0] for _ in range(3)]
    sent = [store.send(me, worker, lease) for lease in leases]
    store.settle(end(sent[0], now=NOW + 5))
    store.settle(end(sent[1], ErrorClass.BUSY, now=NOW + 6))
    store.settle(end(sent[2], judged=Failed(), error=ErrorClass.BROKEN, now=NOW + 7))
    assert store.value("SELECT finished_at FROM jobs") is None
    last = store.must_take(me, worker, now=NOW + 99).leases[0]
    store.settle(end(store.send(me, worker, last), now=NOW + 101))
    assert store.value("SELECT finished_at FROM jobs") == NOW + 101
    assert store.rows("SELECT state, done, failed FROM job_progress") == [("failed", 2, 1)]


def test_two_jobs_that_share_a_reading_end_each_with_its_own(store: Store) -> None:
    first, second = add_job(store, ["a paper"]), add_job(store, ["a paper"], ["limits"])
    me, worker = store.coordinator(), store.worker("studio")
    leases = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, leases[0])))
    assert store.rows("SELECT id FROM jobs WHERE finished_at IS NOT NULL") == [(first,)]
    store.settle(end(store.send(me, worker, leases[1])))
    assert store.rows("SELECT state FROM job_progress WHERE job_id = ?", second) == [("completed",)]


def test_an_answer_after_its_lease_was_given_back_is_accepted(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    group = store.must_take(me, worker)
    sent = store.send(me, worker, group.leases[0])
    store.write(lambda tx: release(tx, group.leases))
    assert store.settle(end(sent)) == 0
    assert store.prompt(1, "state, lease") == ("done", 1)


def test_an_answer_that_was_cut_is_counted_as_such(store: Store) -> None:
    add_job(store, ["a paper"])
    me, worker = store.coordinator(), store.worker("studio")
    store.settle(end(store.send(me, worker, store.must_take(me, worker).leases[0]), finish_reason="length"))
    counted = "done, truncated, unproven, prompt_tokens, cached_tokens, completion_tokens"
    assert store.rows(f"SELECT {counted} FROM job_counters") == [(1, 1, 0, 500, 400, 7)]


def test_what_no_window_holds_fails_with_the_figures(store: Store) -> None:
    around = QUESTION_TOKENS + MAX_TOKENS
    job = add_job(store, ["x" * 100, "x" * 1000])
    other = add_job(store, ["x" * 2000], model="qwen-4b")
    assert store.write(lambda tx: fail_unfit(tx, MODEL, 100 + around, [1], NOW)) == 1
    assert store.states(job) == {"pending": 1, "failed": 1}
    assert store.rows("SELECT error FROM failures") == [
        ("needs a context window of 1110 tokens, and the largest here holds 210: give a worker a larger one",)
    ]
    assert store.write(lambda tx: fail_unfit(tx, "qwen-4b", 2000, [1], NOW + 1)) == 1
    assert store.rows("SELECT id, finished_at FROM jobs WHERE finished_at IS NOT NULL") == [(other, NOW + 1)]


def test_what_a_worker_did_is_counted(store: Store) -> None:
    add_job(store, ["one", "two", "three", "four"])
    me, worker = store.coordinator(), store.worker("studio")
    for kind in (None, ErrorClass.BROKEN, ErrorClass.RELEASED, None):
        lease = store.must_take(me, worker).leases[0]
        store.settle(end(store.send(me, worker, lease), kind))
    told = "requests, succeeded, failed, success_rate, avg_seconds, min_seconds, max_seconds"
    assert store.rows(f"SELECT {told} FROM worker_stats") == [(3, 2, 1, 2 / 3, 3.0, 3.0, 3.0)]
    assert store.rows("SELECT completion_tokens, last_seen_at FROM workers") == [(14, NOW + 3)]


def test_what_all_workers_have_refused_fails_when_the_last_willing_one_has_left(store: Store) -> None:
    job = add_job(store, ["a paper"])
    me, here, gone = store.coordinator(), store.worker("here"), store.worker("gone")
    refused = end(
        store.send(me, here, store.must_take(me, here).leases[0]), error=ErrorClass.INPUT, others=(here, gone)
    )
    store.settle(refused)
    assert store.states(job) == {"pending": 1}
    assert store.write(lambda tx: fail_unfit(tx, MODEL, 10_000, [here, gone], NOW)) == 0
    assert store.write(lambda tx: fail_unfit(tx, MODEL, 10_000, [here], NOW)) == 1
    assert store.rows("SELECT error FROM failures") == [(refused.outcome.error,)]


def test_an_answer_is_proven_later_once_and_only_if_it_is_that_answer(store: Store) -> None:
    add_job(store, ["a paper", "another"])
    me, worker = store.coordinator(), store.worker("studio")
    leases = [store.must_take(me, worker).leases[0] for _ in range(2)]
    first, second = (store.send(me, worker, lease) for lease in leases)
    store.settle(*(replace(end(sent), proof="unproven") for sent in (first, second)))
    assert store.rows("SELECT sum(unproven) FROM job_counters") == [(2,)]
    another = store.unwritten(me, worker, second.lease)
    for _ in range(2):
        store.write(lambda tx: prove(tx, [first, another]))
    assert store.rows("SELECT proof FROM results ORDER BY prompt_id") == [("proven",), ("unproven",)]
    assert store.rows("SELECT sum(unproven), sum(done) FROM job_counters") == [(1, 2)]
