"""What nobody reads any more goes, in steps between which the database keeps its promises; answers stay."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter

import pytest

from distllm.domain.models import ErrorClass
from distllm.domain.places import DatabasePlace
from distllm.domain.policy import Failed
from distllm.store import removal
from distllm.store.attempts import Sent
from distllm.store.control import cancel_some, request_cancel
from distllm.store.database import open_database
from distllm.store.fleet import register
from distllm.store.leases import release
from distllm.store.prune import prune
from distllm.store.removal import ended_jobs, remove_some
from distllm.store.requests import NewBatch, NewRequest, add_requests, open_batch, submit_batch
from distllm.store.samples import Sample, add_samples
from distllm.store.sweeps import DOCUMENTS, READINGS, Sweep, sweep_some
from distllm.store.tables import metadata
from tests.store.store_kit import (
    MODEL,
    NOW,
    SqliteStore,
    Store,
    add_job,
    assert_agrees,
    assert_consistent,
    end,
    paper,
    split,
)

DAY = 86_400.0
LATER = NOW + 40 * DAY
"""Forty days after everything in these tests has ended."""

BEFORE = LATER - 30 * DAY


def send_all(store: Store, me: int, worker: int, now: float) -> list[Sent]:
    """Everything that is ready is sent."""
    sent = []
    while group := store.take(me, worker, now=now):
        sent += [store.send(me, worker, lease, now) for lease in group.leases]
    return sent


def answer_all(store: Store, *, now: float = NOW) -> None:
    """Every prompt is answered at its third attempt: one is broken, one is lost with its coordinator."""
    me, worker = store.reclaim(now), store.worker("w")
    store.settle(*(end(each, ErrorClass.BROKEN, now=now) for each in send_all(store, me, worker, now)))
    send_all(store, me, worker, now + 90)
    me = store.reclaim(now + 100)
    # Parts first, then what has waited for them.
    while sent := send_all(store, me, worker, now + 200):
        store.settle(*(end(each, now=now + 201) for each in sent))


def fail_all(store: Store, *, now: float = NOW) -> None:
    """Every prompt fails at its third attempt."""
    me, worker = store.reclaim(now), store.worker("w")
    for turn, judged in enumerate((None, None, Failed())):
        sent = send_all(store, me, worker, now + 90 * turn)
        store.settle(*(end(each, ErrorClass.BROKEN, now=now + 90 * turn, judged=judged) for each in sent))


async def run(
    place: DatabasePlace, *, jobs: bool = False, only_count: bool = False, before: float = BEFORE
) -> dict[str, int]:
    """Prune as the command does; the kinds of rows of which some went."""
    async with open_database(place, references=False) as database:
        doomed = await ended_jobs(database.read, before) if jobs else []
        gone = await prune(database, before, doomed, lambda _: None, only_count=only_count)
    return {kind: number for kind, number in gone.items() if number}


def contents(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All rows of distllm's own tables."""
    return {table: store.rows(f"SELECT * FROM {table} ORDER BY 1") for table in metadata.tables}


async def test_attempts_go_and_the_answers_and_their_attempts_stay(store: Store) -> None:
    add_job(store, ["one", "two"])
    answer_all(store)
    before = contents(store)
    assert store.value("SELECT count(*) FROM attempts") > 4
    gone = await run(store.place)
    assert gone == {"attempts": len(before["attempts"]) - 2}
    after = contents(store)
    assert store.rows("SELECT id FROM attempts") == store.rows("SELECT attempt_id FROM results ORDER BY 1")
    assert {name for name in before if before[name] != after[name]} == {"attempts"}
    assert store.rows("SELECT attempts FROM answers") == [(1,), (1,)]
    assert await run(store.place) == {}


async def test_a_failure_keeps_its_newest_attempt(store: Store) -> None:
    add_job(store, ["one", "two"])
    fail_all(store)
    assert store.rows("SELECT attempts FROM failures") == [(3,), (3,)]
    newest = store.rows("SELECT max(id) FROM attempts GROUP BY prompt_id ORDER BY 1")
    assert await run(store.place) == {"attempts": 4}
    assert store.rows("SELECT id FROM attempts ORDER BY id") == newest
    assert store.rows("SELECT attempts FROM failures") == [(1,), (1,)]


@pytest.mark.parametrize("change", ["finished_at = NULL", f"finished_at = {BEFORE}"], ids=["unfinished", "young"])
async def test_what_has_not_ended_or_not_long_ago_is_left_alone(store: Store, change: str) -> None:
    add_job(store, ["one", "two"])
    answer_all(store)
    store.rows(f"UPDATE jobs SET {change}")
    before = contents(store)
    assert await run(store.place) == {}
    assert await run(store.place, jobs=True) == {}
    assert contents(store) == before
    store.rows("UPDATE jobs SET finished_at = ?", NOW)


async def test_an_attempt_that_is_still_in_flight_is_left_to_its_coordinator(store: Store) -> None:
    job = add_job(store, ["one"])
    me, worker = store.coordinator(), store.worker("w")
    store.send(me, worker, store.must_take(me, worker).leases[0])
    store.write(lambda tx: request_cancel(tx, job, NOW))
    assert store.write(lambda tx: cancel_some(tx, job, NOW)) == 1
    assert await run(store.place) == {}
    assert store.rows("SELECT outcome FROM attempts") == [(None,)]


async def test_old_samples_of_workers_go(store: Store) -> None:
    worker = store.worker("w")
    sample = Sample(worker, True, 0, 1, 1, 0, 7, 3.0)
    for at in (NOW, BEFORE - 1, BEFORE, LATER):
        store.write(lambda tx, at=at: add_samples(tx, [sample], at))
    assert await run(store.place) == {"worker_metrics": 2}
    assert store.rows("SELECT at FROM worker_metrics ORDER BY id") == [(BEFORE,), (LATER,)]


async def test_a_job_goes_with_all_that_is_its_own_and_nothing_of_others(store: Store) -> None:
    old = add_job(store, ["only here", "shared"], ["findings", "limits"])
    answer_all(store)
    young = add_job(store, ["shared", "new"], ["findings"])
    answer_all(store, now=LATER)
    kept = store.rows("SELECT * FROM answers WHERE job_id = ? ORDER BY document", young)
    gone = await run(store.place, jobs=True)
    # Of four prompts each was tried more than twice.
    assert gone.pop("attempts") >= 8
    assert gone == {"jobs": 1, "prompts": 4, "results": 4, "readings": 1, "documents": 1}
    assert store.rows("SELECT id FROM jobs") == [(young,)]
    assert store.rows("SELECT * FROM answers ORDER BY document") == kept
    assert store.rows("SELECT text FROM documents ORDER BY text") == [("new",), ("shared",)]
    for table in ("templates", "job_documents", "job_counters", "job_tokens", "job_readings", "prompts"):
        assert store.value(f"SELECT count(*) FROM {table} WHERE job_id = ?", old) == 0
    # The number of a job that went is given to no other.
    assert add_job(store, ["more"]) == young + 1


async def test_an_answer_that_was_reused_stays_whole_when_its_source_goes(store: Store) -> None:
    first = add_job(store, ["a paper"])
    answer_all(store)
    second = add_job(store, ["a paper"])
    store.rows("UPDATE jobs SET finished_at = ? WHERE id = ?", LATER, second)
    before = store.rows("SELECT * FROM answers WHERE job_id = ?", second)
    await run(store.place, jobs=True)
    assert store.rows("SELECT id FROM jobs") == [(second,)]
    assert store.rows("SELECT * FROM answers") == before
    assert store.value("SELECT reused_from FROM results") == first
    # And is reused in its turn.
    third = add_job(store, ["a paper"])
    assert store.states(third) == {"done": 1}
    store.rows("UPDATE jobs SET finished_at = ? WHERE id = ?", LATER, third)


def batch(store: Store, system: str) -> int:
    asked = NewRequest(f"hash of {system}", system, 5, 105, 100, '{"messages": []}')
    new = NewBatch("batch", MODEL, {}, 0, f"key of {system}")
    job, _ = store.write(lambda tx: open_batch(tx, new, [], NOW))
    store.write(lambda tx: add_requests(tx, job, 0, [asked], [], NOW))
    store.write(lambda tx: submit_batch(tx, job, NOW))
    return job


async def test_a_reading_that_is_no_document_stays_while_a_prompt_needs_it(store: Store) -> None:
    batch(store, "Be brief.")
    fail_all(store)
    batch(store, "Be long.")
    gone = await run(store.place, jobs=True)
    assert gone == {"jobs": 1, "prompts": 1, "attempts": 3, "readings": 1}
    assert store.rows("SELECT system FROM readings") == [("Be long.",)]


async def test_a_batch_that_went_is_made_anew(store: Store) -> None:
    first = batch(store, "Be brief.")
    answer_all(store)
    await run(store.place, jobs=True)
    assert batch(store, "Be brief.") > first


async def test_what_no_job_points_at_goes_without_jobs_too(store: Store) -> None:
    add_job(store, ["kept", "unlinked", "unreadable once"])
    store.rows("DELETE FROM prompts WHERE document_id > 1")
    store.rows("UPDATE job_counters SET pending = 1")
    store.rows("UPDATE job_documents SET document_id = NULL, reading_id = NULL WHERE ordinal > 0")
    store.rows("DELETE FROM readings WHERE document_id = 3")
    assert await run(store.place) == {"readings": 1, "documents": 2}
    assert store.rows("SELECT text FROM documents") == [("kept",)]
    assert store.faults() == []


def test_a_text_whose_file_reads_as_another_one_stays(store: Store) -> None:
    """Two files with other bytes and the same text are two documents and one reading."""
    add_job(store, [paper("same", data=b"one"), paper("same", data=b"two")])
    assert store.value("SELECT count(*) FROM readings") == 1
    store.be_pruned()
    for sweep in (READINGS, DOCUMENTS):
        assert store.write(lambda tx, sweep=sweep: sweep_some(tx, sweep, 0, BEFORE)).going == 0
    # The reading is needed by the second file alone, and needs the first document.
    store.rows("DELETE FROM prompts")
    store.rows("DELETE FROM job_counters")
    store.rows("DELETE FROM job_documents WHERE ordinal = 0")
    store.rows("UPDATE jobs SET finished_at = ?", NOW)
    assert [store.write(lambda tx, s=s: sweep_some(tx, s, 0, BEFORE)).going for s in (READINGS, DOCUMENTS)] == [0, 0]
    store.rows("DELETE FROM job_documents")
    assert [store.write(lambda tx, s=s: sweep_some(tx, s, 0, BEFORE)).going for s in (READINGS, DOCUMENTS)] == [1, 2]


def mixed(store: Store) -> None:
    """Old jobs: one answered, with parts; one failed; one cancelled; one reused; a batch. And a young one."""
    add_job(store, ["a long paper", "a paper"], ["findings", "limits"])
    split(store, 1, 2)
    answer_all(store)
    add_job(store, ["another"])
    fail_all(store)
    cancelled = add_job(store, ["never read", "nor this"])
    store.write(lambda tx: request_cancel(tx, cancelled, NOW))
    assert store.write(lambda tx: cancel_some(tx, cancelled, NOW))
    add_job(store, ["a paper"], ["findings"])
    batch(store, "Be brief.")
    answer_all(store)
    add_job(store, ["a paper", "a new one"], ["findings"], fresh=True)
    answer_all(store, now=LATER)


def test_between_two_steps_of_a_removal_every_promise_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "CHUNK_PROMPTS", 1)
    monkeypatch.setattr(removal, "CHUNK_FILES", 1)
    mixed(store)
    young = store.rows("SELECT * FROM job_progress WHERE job_id = 6")
    steps = 0
    for job in range(1, 7):
        while store.write(lambda tx, job=job: remove_some(tx, job, BEFORE)) is not None:
            steps += 1
            assert_agrees(store.rows)
            assert store.faults() == []
    # A family of prompts, a file, or what is left, in each.
    assert steps == (4 + 2 + 1) + (1 + 1 + 1) + (2 + 2 + 1) + (1 + 1 + 1) + (1 + 1)
    assert store.rows("SELECT * FROM job_progress") == young


def test_nobody_brings_back_a_job_that_has_begun_to_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "CHUNK_PROMPTS", 1)
    first = batch(store, "Be brief.")
    answer_all(store)
    assert store.write(lambda tx: remove_some(tx, first, BEFORE)) == Counter(prompts=1, results=1, attempts=3)
    assert store.value("SELECT state FROM job_progress") == "cancelled"
    assert batch(store, "Be brief.") != first
    store.write(lambda tx: remove_some(tx, first, BEFORE))
    assert store.write(lambda tx: remove_some(tx, first, BEFORE)) is None


def test_a_removal_ends_where_its_job_goes_on_again(store: Store) -> None:
    job = add_job(store, ["one"])
    assert store.write(lambda tx: remove_some(tx, job, BEFORE)) is None
    assert store.states(job) == {"pending": 1}


async def test_a_dry_run_says_what_goes_and_changes_nothing(store: Store) -> None:
    mixed(store)
    for jobs in (False, True):
        before = contents(store)
        said = await run(store.place, jobs=jobs, only_count=True)
        assert contents(store) == before
        assert await run(store.place, jobs=jobs) == said
        assert_consistent(store)
    assert said.keys() >= {"jobs", "prompts", "results", "attempts", "readings", "documents"}


@pytest.mark.parametrize("error", [None, ErrorClass.BROKEN, ErrorClass.INPUT])
def test_what_is_told_late_of_a_prompt_that_is_gone_is_dropped(store: Store, error: ErrorClass | None) -> None:
    job = add_job(store, ["one", "two"])
    me, worker = store.coordinator(), store.worker("w")
    written, unwritten = (store.must_take(me, worker, limit=1, reading=reading).leases[0] for reading in (1, 2))
    sent = [store.send(me, worker, written), store.unwritten(me, worker, unwritten)]
    store.write(lambda tx: request_cancel(tx, job, NOW))
    assert store.write(lambda tx: cancel_some(tx, job, NOW)) == 2
    while store.write(lambda tx: remove_some(tx, job, BEFORE)) is not None:
        pass
    add_job(store, ["three"])
    (other,) = store.must_take(me, worker).leases
    if isinstance(store, SqliteStore):
        assert other.key == written.key, "an id is given again"
    store.settle(*(end(each, error, others=(worker,)) for each in sent))
    store.write(lambda tx: release(tx, [written]))
    for table in ("attempts", "results", "refusals"):
        assert store.rows(f"SELECT * FROM {table}") == []
    assert store.prompt(other.prompt_id, "state, failures, losses") == ("leased", 0, 0)
    store.settle(end(store.send(me, worker, other)))
    assert store.value("SELECT answer FROM results") == "forty-two"


def test_a_step_is_bounded_and_the_next_one_goes_on(store: Store) -> None:
    add_job(store, ["one", "two", "three"])
    store.be_pruned()
    for table in ("prompts", "job_counters", "job_tokens", "job_documents", "templates", "jobs"):
        store.rows(f"DELETE FROM {table}")
    few = Sweep(DOCUMENTS.name, DOCUMENTS.page, DOCUMENTS.deletes, looked=2, most=1)
    after: int | None = 0
    steps = []
    while after is not None:
        step = store.write(lambda tx, first=after: sweep_some(tx, few, first, BEFORE))
        steps.append(step)
        after = step.after
    assert [step.going for step in steps] == [1, 1, 1, 0]
    assert store.value("SELECT count(*) FROM documents") + store.value("SELECT count(*) FROM readings") == 0


async def test_others_have_the_database_for_as_long_as_each_step_took(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(store, ["one", "two"])
    answer_all(store)
    left: list[float] = []

    async def leave(seconds: float) -> None:
        left.append(seconds)

    monkeypatch.setattr("distllm.store.prune.asyncio.sleep", leave)
    assert (await run(store.place, jobs=True))["jobs"] == 1
    # Prompts, files, the job, that nothing is left; then four sweeps.
    assert len(left) == 8
    assert all(seconds > 0 for seconds in left)


async def test_others_write_between_the_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "CHUNK_PROMPTS", 1)
    add_job(store, [f"paper {n}" for n in range(60)])
    answer_all(store)
    pruning = asyncio.create_task(run(store.place, jobs=True))
    written = 0
    async with open_database(store.place) as other:
        while not pruning.done():
            await other.write(lambda tx: register(tx, "other", 1, NOW))
            written += 1
    assert (await pruning)["prompts"] == 60
    assert written > 10


_PRUNER = """
import asyncio, sys
from distllm.domain.places import place_of
from distllm.store import removal
from distllm.store.attempts import Sent
from distllm.store.database import open_database
from distllm.store.prune import prune
removal.CHUNK_PROMPTS = removal.CHUNK_FILES = 1
place, before = place_of(sys.argv[1]), float(sys.argv[2])
async def main():
    async with open_database(place, references=False) as database:
        jobs = await removal.ended_jobs(database.read, before)
        await prune(database, before, jobs, lambda gone: print(gone.total(), flush=True))
asyncio.run(main())
"""


def test_killed_at_any_step_it_leaves_a_sound_database_and_the_next_one_goes_on(store: Store) -> None:
    add_job(store, [f"paper {n}" for n in range(40)], ["findings", "limits"])
    answer_all(store)
    left = store.value("SELECT count(*) FROM prompts")
    for lines in (3, 17):
        command = [sys.executable, "-c", _PRUNER, str(store.place), str(BEFORE)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(lines)][-1]
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert_consistent(store)
        now = store.value("SELECT count(*) FROM prompts")
        assert 0 < now < left
        left = now
    gone = asyncio.run(run(store.place, jobs=True))
    assert gone["prompts"] == left
    assert gone["documents"] == 40
    assert_consistent(store)
    for table in ("jobs", "prompts", "attempts", "results", "documents", "readings", "job_documents"):
        assert store.value(f"SELECT count(*) FROM {table}") == 0
