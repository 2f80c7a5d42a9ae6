"""Long documents: parts that are asked about, and what waits for them until their answers are put together."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from distllm.domain.models import ErrorClass
from distllm.domain.parts import PART_NOTE_TOKENS, merge_needs
from distllm.domain.policy import Failed
from distllm.store.attempts import Settlement
from distllm.store.backlog import backlog
from distllm.store.control import Room, cancel_some, request_cancel, retry_some, retry_truncated
from distllm.store.failures import fail_unfit
from distllm.store.fleet import read_last
from distllm.store.leases import Lease
from distllm.store.parts import keep_window, save_parts
from distllm.store.readings import NewPart
from distllm.store.removal import remove_some
from distllm.store.submissions import build_prompts, create_job
from distllm.store.sweeps import READINGS, sweep_some
from tests.store.store_kit import (
    HUGE,
    MAX_TOKENS,
    MERGE_TOKENS,
    MODEL,
    NOW,
    PART,
    QUESTION_TOKENS,
    WINDOW,
    Store,
    add_job,
    add_long_job,
    build_all,
    end,
    paper,
    plan_parts,
    reading,
    request,
    save_all,
)

PARTS = 7
LONG = "".join(letter * PART for letter in "abcdefg")
SHORT = "short"
MERGES = 3
"""Beside the last one, which makes the answer."""


def tree(store: Store, prompt_id: int) -> object:
    """What a prompt waits for, as lists of lists, down to the first letters of what is read."""
    below = store.rows("SELECT id FROM prompts WHERE parent_id = ? ORDER BY id", prompt_id)
    if below:
        return [tree(store, child) for (child,) in below]
    return store.value(
        "SELECT substr(d.text, CAST(r.first AS INTEGER) + 1, 1) FROM prompts p JOIN readings r ON r.id = p.reading_id "
        "JOIN documents d ON d.id = r.document_id WHERE p.id = ?",
        prompt_id,
    )


def new_job(store: Store, papers: list[str]) -> int:
    """A job that has read its files."""
    asked = request([str(place) for place in range(len(papers))], ["findings"])
    job = store.write(lambda tx: create_job(tx, asked, NOW))
    save_all(store, job, [paper(text) for text in papers])
    return job


def all_ready(store: Store, me: int, worker: int) -> Iterator[Lease]:
    """All that is ready, until nothing is."""
    while group := store.take(me, worker):
        yield from group.leases


def answer(store: Store, lease: Lease, me: int, worker: int) -> Settlement:
    said = f"({' '.join(lease.answers)})" if lease.level else f"{lease.part}/{lease.parts}"
    return end(store.send(me, worker, lease), answer=said)


def answer_all(store: Store) -> list[Lease]:
    me, worker = store.coordinator(), store.worker("studio")
    leases = []
    for lease in all_ready(store, me, worker):
        leases.append(lease)
        store.settle(answer(store, lease, me, worker))
    return leases


def test_a_long_document_is_asked_about_in_parts_and_a_short_one_whole(store: Store) -> None:
    add_long_job(store, [SHORT, LONG])
    assert tree(store, 1) == "s"
    assert tree(store, 2) == [["a", "b"], ["c", "d"], ["e", "f", "g"]]
    assert store.rows("SELECT total, pending FROM job_progress") == [(2, 2)]
    assert store.rows("SELECT total, pending FROM part_progress") == [(PARTS + MERGES, PARTS + MERGES)]
    assert store.rows("SELECT count(*) FROM job_parts") == [(0,)]


def test_a_merge_of_one_is_not_asked(store: Store) -> None:
    # Two answers at once are all that this window holds.
    add_long_job(store, [LONG[: 5 * PART]], window=500)
    assert tree(store, 1) == ["a", [["b", "c"], ["d", "e"]]]
    answer_all(store)
    assert store.value("SELECT answer FROM answers") == "(1/5 ((2/5 3/5) (4/5 5/5)))"
    assert store.value("SELECT parts FROM answers") == 5


def test_whatever_is_asked_fits_the_window(store: Store) -> None:
    add_long_job(store, [LONG])
    needs = dict(store.rows("SELECT level, max(tokens) FROM prompts GROUP BY level"))
    assert needs[0] == PART + PART_NOTE_TOKENS + QUESTION_TOKENS + MAX_TOKENS
    assert needs[1] == needs[2] == merge_needs(3, (MERGE_TOKENS, MAX_TOKENS))
    assert max(needs.values()) <= WINDOW


def test_the_prompt_of_the_whole_document_is_the_one_it_would_have_been(store: Store) -> None:
    columns = "document_id, reading_id, template_id IS NOT NULL, parent_id, part, parts"
    add_long_job(store, [LONG], window=HUGE)
    add_long_job(store, [LONG])
    assert store.prompt(1, columns) == store.prompt(2, columns) == (1, 1, 1, None, None, None)
    assert store.prompt(2, "level, waits_for") == (2, MERGES)


def test_an_answer_is_put_together_from_all_parts_in_their_order(store: Store) -> None:
    add_long_job(store, [LONG])
    leases = answer_all(store)
    assert [lease.level for lease in leases] == [0] * PARTS + [1] * MERGES + [2]
    assert store.value("SELECT answer FROM answers") == "((1/7 2/7) (3/7 4/7) (5/7 6/7 7/7))"
    assert store.rows("SELECT parts, proof, attempts FROM answers") == [(7, "proven", 1)]
    assert store.rows("SELECT total, done FROM part_progress") == [(10, 10)]
    assert store.rows("SELECT state FROM job_progress") == [("completed",)]


def test_a_document_that_is_not_split_is_answered_from_one_part(store: Store) -> None:
    add_long_job(store, [SHORT])
    answer_all(store)
    assert store.rows("SELECT parts FROM answers") == [(1,)]


def test_questions_share_the_reading_of_each_part(store: Store) -> None:
    add_long_job(store, [LONG], ["findings", "limits", "method", "question", "use"])
    me, worker = store.coordinator(), store.worker("studio")
    groups = [store.must_take(me, worker) for _ in range(PARTS)]
    assert [len(group.leases) for group in groups] == [5] * PARTS
    assert [group.document for group in groups] == [letter * PART for letter in "abcdefg"]
    assert store.take(me, worker) is None


def test_what_is_put_together_is_no_better_proven_than_its_worst_part(store: Store) -> None:
    add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for lease in all_ready(store, me, worker):
        told = answer(store, lease, me, worker)
        store.settle(replace(told, proof="unproven") if lease.part == 4 else told)
    assert store.rows("SELECT proof FROM answers") == [("unproven",)]
    assert store.rows("SELECT count(*) FROM results WHERE proof = 'unproven'") == [(3,)]


def test_a_part_that_fails_for_good_is_named_and_a_retry_mends_the_whole(store: Store) -> None:
    job = add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for lease in all_ready(store, me, worker):
        bad = {"error": ErrorClass.BROKEN, "judged": Failed()} if lease.part == 3 else {}
        store.settle(end(store.send(me, worker, lease), **bad))  # type: ignore[arg-type]
    assert store.rows("SELECT prompt, error FROM failures") == [("findings", "part 3 of 7: broken, says the server")]
    assert store.rows("SELECT state FROM job_progress") == [("failed",)]
    assert store.rows("SELECT failed, done FROM part_progress") == [(2, 8)], "the part, and what put it together"
    assert store.write(lambda tx: retry_some(tx, job, NOW)) == 3
    assert [(lease.part, lease.level) for lease in answer_all(store)] == [(3, 0), (None, 1), (None, 2)]
    assert store.rows("SELECT parts FROM answers") == [(7,)]


def test_answers_that_cannot_be_put_together_fail_the_whole(store: Store) -> None:
    add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for lease in all_ready(store, me, worker):
        bad = {"error": ErrorClass.BROKEN, "judged": Failed()} if lease.level else {}
        store.settle(end(store.send(me, worker, lease), **bad))  # type: ignore[arg-type]
    assert store.rows("SELECT error FROM failures") == [("parts could not be put together: broken, says the server",)]


def test_a_part_that_no_window_holds_any_more_is_named_with_the_figures(store: Store) -> None:
    add_long_job(store, [LONG])
    assert store.write(lambda tx: fail_unfit(tx, MODEL, 400, [1], NOW)) == PARTS
    reason = store.value("SELECT error FROM failures")
    assert reason.startswith("part 1 of 7: needs a context window of 458 tokens, and the largest here holds 400")


def test_a_small_worker_gets_no_part_that_it_cannot_hold(store: Store) -> None:
    add_long_job(store, [SHORT, LONG])
    me, small, large = store.coordinator(), store.worker("small"), store.worker("large")
    windows = {MODEL: 300}
    assert [lease.part for lease in store.must_take(me, small, windows=windows).leases] == [None]
    assert store.take(me, small, windows=windows) is None
    assert store.must_take(me, large, windows={MODEL: WINDOW}).leases[0].parts == PARTS


def test_the_same_question_again_asks_nothing(store: Store) -> None:
    add_long_job(store, [LONG, SHORT])
    answer_all(store)
    again = add_long_job(store, [LONG, SHORT])
    assert store.states(again) == {"done": 2}
    found = store.rows("SELECT parts, reused_from FROM answers WHERE job_id = ? ORDER BY parts", again)
    assert found == [(1, 1), (7, 1)]


def test_only_the_question_that_is_new_gets_parts(store: Store) -> None:
    add_long_job(store, [LONG], ["findings"])
    answer_all(store)
    again = add_long_job(store, [LONG], ["findings", "limits"])
    assert store.states(again) == {"done": 1, "pending": 1 + PARTS + MERGES}
    counted = store.rows("SELECT asked, readings, reading_tokens FROM job_tokens WHERE job_id = ?", again)
    assert counted == [(1 + PARTS + MERGES, PARTS, PARTS * PART)]


def test_another_way_of_putting_together_reads_nothing_again(store: Store) -> None:
    add_long_job(store, [LONG, SHORT])
    answer_all(store)
    again = add_long_job(store, [LONG, SHORT], merge="Make a list.")
    assert store.states(again) == {"done": 1 + PARTS, "pending": 1 + MERGES}
    counted = store.rows("SELECT asked, readings, reading_tokens FROM job_tokens WHERE job_id = ?", again)
    assert counted == [(1 + MERGES, 0, 0)]
    assert [lease.level for lease in answer_all(store)] == [1] * MERGES + [2]
    assert store.rows("SELECT parts, reused_from FROM answers WHERE job_id = ? AND parts > 1", again) == [(7, None)]


def test_what_a_job_was_told_before_it_was_cancelled_is_not_asked_again(store: Store) -> None:
    first = add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for _ in range(3):
        [lease] = store.must_take(me, worker).leases
        store.settle(answer(store, lease, me, worker))
    store.write(lambda tx: request_cancel(tx, first, NOW))
    store.write(lambda tx: cancel_some(tx, first, NOW))
    again = add_long_job(store, [LONG])
    assert [lease.part for lease in answer_all(store) if not lease.level] == [4, 5, 6, 7]
    assert store.rows("SELECT answer FROM answers WHERE job_id = ?", again) == [
        ("((1/7 2/7) (3/7 4/7) (5/7 6/7 7/7))",)
    ]
    assert store.rows("SELECT sum(reused), sum(done) FROM job_counters WHERE job_id = ?", again) == [(3, 11)]


def test_a_part_of_another_number_of_parts_is_asked_about_anew(store: Store) -> None:
    add_long_job(store, [LONG])
    answer_all(store)
    again = add_long_job(store, [LONG + "z"], merge="Make a list.")
    assert store.states(again) == {"pending": 1 + 8 + MERGES}


def test_a_fresh_job_asks_about_every_part(store: Store) -> None:
    add_long_job(store, [LONG])
    answer_all(store)
    again = add_long_job(store, [LONG], fresh=True)
    assert store.states(again) == {"pending": 1 + PARTS + MERGES}


def test_where_one_part_holds_all_that_is_to_be_read_the_document_is_that_part(store: Store) -> None:
    job = new_job(store, ["x" * 450 + "references" * 20])
    store.write(lambda tx: keep_window(tx, job, WINDOW))
    store.write(lambda tx: save_parts(tx, job, 0, [NewPart(0, 450, reading("x" * 450))]))
    build_all(store, job)
    group = store.must_take(store.coordinator(), store.worker("studio"))
    assert group.document == "x" * 450
    assert [(lease.level, lease.part, lease.needs) for lease in group.leases] == [(0, None, 560)]


def test_building_goes_on_with_the_same_plan_where_a_killed_submit_stopped(
    store: Store, second_connection: Callable[[], Store]
) -> None:
    job = new_job(store, [LONG, SHORT, LONG + "h"])
    store.write(lambda tx: keep_window(tx, job, WINDOW))
    later = second_connection()
    # Another window is known by now: the one that was kept holds.
    assert later.write(lambda tx: keep_window(tx, job, WINDOW + 100)).window == WINDOW
    plan_parts(later, job)
    plan_parts(store, job, size=PART - 100)
    build_all(store, job)
    assert [tree(store, prompt) for prompt in (1, 2, 3)] == [
        [["a", "b"], ["c", "d"], ["e", "f", "g"]],
        "s",
        [["a", "b"], ["c", "d", "e"], ["f", "g", "h"]],
    ]


def test_few_documents_are_built_at_once_where_they_have_many_parts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distllm.store.parts.MOST_PARTS", 2 * PARTS)
    job = new_job(store, [f"{place}{LONG}"[:-1] for place in range(5)])
    plan_parts(store, job)
    steps = 1
    while not store.write(lambda tx: build_prompts(tx, job, NOW)):
        steps += 1
    assert steps == 3
    assert store.states(job) == {"pending": 5 * (1 + PARTS + MERGES)}


def test_copies_of_a_long_document_are_asked_about_once(store: Store) -> None:
    job = add_long_job(store, [LONG, LONG])
    assert store.states(job) == {"pending": 1 + PARTS + MERGES}


def test_parts_that_are_alike_are_asked_about_each_in_its_place(store: Store) -> None:
    add_long_job(store, ["x" * 3 * PART])
    assert sorted((lease.part, lease.parts) for lease in answer_all(store) if not lease.level) == [
        (1, 3),
        (2, 3),
        (3, 3),
    ]


def test_a_job_that_is_cancelled_while_it_is_built_leaves_no_plan(store: Store) -> None:
    job = new_job(store, [LONG])
    plan_parts(store, job)
    assert store.rows("SELECT count(*) FROM job_parts") == [(PARTS,)]
    store.write(lambda tx: request_cancel(tx, job, NOW))
    store.write(lambda tx: cancel_some(tx, job, NOW))
    assert store.rows("SELECT count(*) FROM job_parts") == [(0,)]
    store.write(lambda tx: save_parts(tx, job, 0, [NewPart(0, 3, reading("aaa")), NewPart(3, 6, reading("aaaa"))]))
    assert store.rows("SELECT count(*) FROM job_parts") == [(0,)], "whoever was splitting comes too late"


def test_pruning_spares_parts_that_are_planned_and_takes_those_of_a_job_that_goes(store: Store) -> None:
    store.be_pruned()

    def swept() -> int:
        return store.write(lambda tx: sweep_some(tx, READINGS, 0, NOW)).going

    job = new_job(store, [LONG])
    plan_parts(store, job)
    assert swept() == 0
    build_all(store, job)
    assert swept() == 0
    answer_all(store)
    assert swept() == 0
    while store.write(lambda tx: remove_some(tx, job, NOW + 99)) is not None:
        pass
    assert store.rows("SELECT count(*) FROM prompts") == [(0,)]
    assert swept() == 1 + PARTS


def test_what_puts_answers_together_has_read_nothing_of_its_document(store: Store) -> None:
    add_long_job(store, [LONG])
    answer_all(store)
    whole = store.value("SELECT reading_id FROM prompts WHERE id = 1")
    assert store.rows("SELECT tokens_read FROM readings WHERE id = ?", whole) == [(None,)]
    assert store.rows("SELECT count(*) FROM job_readings WHERE reading_id = ?", whole) == [(0,)]
    assert whole not in store.write(read_last)[1]
    assert store.rows("SELECT begun_tokens, reading_tokens FROM job_tokens") == [(PARTS * PART,) * 2]


def test_what_waits_to_be_put_together_costs_what_it_is_put_together_from(store: Store) -> None:
    add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for _ in range(PARTS):
        [lease] = store.must_take(me, worker).leases
        store.settle(answer(store, lease, me, worker))
    needs = [merge_needs(inputs, (MERGE_TOKENS, MAX_TOKENS)) for inputs in (2, 2, 3)]
    found = [(each.tokens, each.prompts, each.needs) for each in store.write(lambda tx: backlog(tx, MODEL))]
    assert found == [(sum(needs), 3, max(needs))]


def test_what_is_to_be_read_is_counted_by_part(store: Store) -> None:
    add_long_job(store, [LONG, SHORT], ["findings", "limits"])
    questions = store.value(
        "SELECT sum(p.tokens - t.max_tokens - CASE p.level WHEN 0 THEN r.tokens ELSE 0 END) FROM prompts p "
        "JOIN templates t ON t.id = p.template_id JOIN readings r ON r.id = p.reading_id"
    )
    counted: list[tuple[Any, ...]] = store.rows(
        "SELECT asked, readings, reading_tokens, question_tokens FROM job_tokens"
    )
    assert counted == [(2 * (1 + PARTS + MERGES) + 2, PARTS + 1, PARTS * PART + len(SHORT), questions)]


def test_a_job_whose_window_nobody_knows_is_not_split(store: Store) -> None:
    add_job(store, [LONG])
    assert store.rows("SELECT level, waits_for FROM prompts") == [(0, 0)]


def test_what_is_to_be_put_together_goes_one_by_one_to_whoever_is_free(store: Store) -> None:
    add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for _ in range(PARTS):
        [lease] = store.must_take(me, worker).leases
        store.settle(answer(store, lease, me, worker))
    whole = store.prompt(1, "reading_id")[0]
    groups = [store.must_take(me, worker, held=[whole]), store.must_take(me, worker, reading=whole)]
    groups.append(store.must_take(me, worker))
    assert [[lease.level for lease in group.leases] for group in groups] == [[1], [1], [1]]
    assert len({group.leases[0].prompt_id for group in groups}) == MERGES


def test_an_answer_that_was_cut_is_put_together_again_with_more_room(store: Store) -> None:
    job = add_long_job(store, [LONG])
    me, worker = store.coordinator(), store.worker("studio")
    for lease in all_ready(store, me, worker):
        told = answer(store, lease, me, worker)
        cut = replace(told, outcome=replace(told.outcome, finish_reason="length"))
        store.settle(cut if lease.level == 2 else told)
    assert store.write(lambda tx: retry_truncated(tx, job, [], NOW)) == Room(again=1, left=0)
    [lease] = answer_all(store)
    assert (lease.level, lease.max_tokens, len(lease.answers)) == (2, 2 * MAX_TOKENS, MERGES)
    assert lease.needs == merge_needs(MERGES, (MERGE_TOKENS, MAX_TOKENS)) + MAX_TOKENS
    assert store.rows("SELECT parts, finish_reason FROM answers") == [(7, "stop")]
