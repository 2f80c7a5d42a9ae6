"""What is run for every prompt costs the same at a million of them: plans, not timings."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from distllm.domain.models import ErrorClass, StoredRequest
from distllm.domain.policy import Failed
from distllm.store import claims, leases, parts, results, reuse
from distllm.store.claims import claim
from distllm.store.control import (
    cancel_some,
    go_on,
    pause,
    request_cancel,
    retry_some,
    retry_truncated,
    unfinished_cancels,
)
from distllm.store.failures import fail_unfit
from distllm.store.leases import reclaim, release, release_strangers
from distllm.store.reads import SqliteReader
from distllm.store.removal import remove_some
from distllm.store.requests import NewBatch, NewRequest, add_requests, open_batch, submit_batch
from distllm.store.sqlite import _sql
from distllm.store.sweeps import DOCUMENTS, DOOMED_ATTEMPTS, OLD_ATTEMPTS, READINGS, SAMPLES, sweep_some
from tests.store.store_kit import MODEL, NOW, SqliteStore, Store, add_job, add_long_job, end, paper, split

# Only these are short, however long the table is.
SHORT = ("ix_prompts_held", "ix_attempts_open")
WHOLE = re.compile(
    rf"SCAN (?:\w+ )?(prompts|attempts|results|p|a|r)\b(?! USING (COVERING )?INDEX ({'|'.join(SHORT)})\b)"
)


class Recorder(sqlite3.Connection):
    """Keeps each statement that was run, with its values."""

    seen: dict[str, Any]

    def execute(self, statement: str, values: Any = (), /) -> sqlite3.Cursor:
        if hasattr(self, "seen"):
            self.seen[statement] = values
        return super().execute(statement, values)

    def executemany(self, statement: str, rows: Any, /) -> sqlite3.Cursor:
        if hasattr(self, "seen") and (kept := list(rows)):
            self.seen[statement] = kept[0]
            rows = kept
        return super().executemany(statement, rows)


class RecordingReader(SqliteReader):
    """Keeps each statement that was asked, with its values."""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        super().__init__(path, connection)
        self.seen: dict[str, Any] = {}

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        self.seen[statement] = values
        return await super().rows(statement, **values)


def begin(store: Store) -> None:
    """A thousand papers, five questions each; some answers, some failures, some in flight."""
    questions = ["findings", "limits", "method", "question", "use"]
    for job in range(2):
        add_job(store, [paper(f"paper {job} {place} " + "x" * (place % 50)) for place in range(500)], questions)
    me, worker = store.coordinator(), store.worker("studio")
    ends = []
    for turn in range(40):
        for lease in store.must_take(me, worker, now=NOW + turn).leases:
            ends.append(end(store.unwritten(me, worker, lease), ErrorClass.BROKEN if turn % 8 == 0 else None))
    store.settle(*ends[:-10])
    split(store, store.value("SELECT max(id) FROM prompts WHERE state = 'pending' AND tokens < 130"), 2)


@pytest.fixture(scope="module")
def large(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that work has begun with."""
    path = tmp_path_factory.mktemp("plans") / "large.db"
    path.write_bytes(template.read_bytes())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        begin(SqliteStore(path, connection))
    return path


@pytest.fixture(params=["never analysed", "analysed"])
def recorded(request: pytest.FixtureRequest, large: Path, tmp_path: Path) -> Iterator[tuple[SqliteStore, Recorder]]:
    path = tmp_path / "d.db"
    path.write_bytes(large.read_bytes())
    with closing(sqlite3.connect(path, isolation_level=None, factory=Recorder)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        if request.param == "analysed":
            connection.execute("ANALYZE")
        connection.seen = {}
        yield SqliteStore(path, connection), connection


def plan(connection: sqlite3.Connection, statement: str, values: Any) -> list[str]:
    return [row[3] for row in sqlite3.Connection.execute(connection, f"EXPLAIN QUERY PLAN {statement}", values)]


def named(connection: Recorder, statement: Any) -> list[str]:
    """The plan of a statement that was run."""
    text = _sql(statement)[0]
    return plan(connection, text, connection.seen[text])


def work(store: Store) -> None:
    """Everything that a coordinator does to prompts."""
    dead, worker, other = store.coordinator(), store.worker("studio"), store.worker("other")
    store.send(dead, worker, store.must_take(dead, worker, now=NOW + 90).leases[0])
    me = store.coordinator()
    store.write(lambda tx: reclaim(tx, me, NOW + 100))
    group = store.must_take(me, worker, now=NOW + 100, held=[3, 4], patience=9)
    sent = [store.send(me, worker, lease) for lease in group.leases]
    store.settle(
        end(sent[0]),
        end(sent[1], ErrorClass.BROKEN),
        end(sent[2], ErrorClass.INPUT, others=(other,)),
        end(sent[3], ErrorClass.BROKEN, judged=Failed()),
    )
    store.write(lambda tx: release_strangers(tx, me, set()))
    again = store.must_take(me, worker, now=NOW + 101, reading=group.reading_id, limit=1)
    store.write(lambda tx: release(tx, again.leases))
    part = store.value("SELECT id FROM prompts WHERE parent_id IS NOT NULL LIMIT 1")
    reading = store.prompt(part, "reading_id")[0]
    parts = [each for each in store.must_take(me, worker, reading=reading).leases if each.parent_id]
    store.settle(end(store.send(me, worker, parts[0])))
    store.settle(end(store.send(me, worker, parts[1]), ErrorClass.BROKEN, judged=Failed()))
    store.write(lambda tx: claim(tx, [], [], me, NOW))
    store.write(lambda tx: fail_unfit(tx, MODEL, 150, [1], NOW + 102))


def read_in_parts(store: Store) -> None:
    """Everything from a book to an answer."""
    job = add_long_job(store, ["".join(f"{number:05}" for number in range(420))], ["findings", "limits"], priority=9)
    me, worker = store.coordinator(), store.worker("studio")
    while store.value("SELECT finished_at IS NULL FROM jobs WHERE id = ?", job):
        for lease in store.must_take(me, worker, now=NOW + 99).leases:
            store.settle(end(store.send(me, worker, lease)))


def manage(store: Store) -> None:
    """Everything that people do to jobs of which one is answered already."""
    answered = [paper(f"paper 0 {place} " + "x" * 49) for place in range(49, 500, 50)]
    job = add_job(store, answered, ["findings", "limits"])
    store.write(lambda tx: pause(tx, job, NOW))
    store.write(lambda tx: go_on(tx, [job]))
    store.write(lambda tx: retry_some(tx, 1, NOW))
    store.write(lambda tx: retry_truncated(tx, 1, [], NOW))
    store.write(lambda tx: request_cancel(tx, 2, NOW))
    assert store.write(lambda tx: cancel_some(tx, 2, NOW))
    store.write(unfinished_cancels)


def test_nothing_that_people_do_to_a_job_reads_those_of_others(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    manage(store)
    written = {text: values for text, values in connection.seen.items() if ":" in text}
    assert any("INSERT INTO results" in text for text in written)
    for text, values in written.items():
        steps = plan(connection, text, values)
        assert not [step for step in steps if WHOLE.search(step)], f"{text}\n{steps}"


def test_nothing_that_a_batch_does_reads_the_prompts_of_others(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    asked = NewRequest("request 1", "", 5, 105, 100, StoredRequest("What?", 100, 0.0).to_json())
    for key in ("one", "two", "one"):
        batch = NewBatch("batch", MODEL, {}, 9, key)
        job, _ = store.write(lambda tx, batch=batch: open_batch(tx, batch, ["weights"], NOW))
        store.write(lambda tx, job=job: add_requests(tx, job, 0, [asked], ["weights"], NOW))
        store.write(lambda tx, job=job: submit_batch(tx, job, NOW))
        if key == "one":
            me, worker = store.coordinator(), store.worker("studio")
            for lease in getattr(store.take(me, worker, limit=1), "leases", ()):
                store.settle(end(store.send(me, worker, lease)))
    written = {text: values for text, values in connection.seen.items() if ":" in text}
    assert any("INSERT INTO results" in text and "prompts.body" in text for text in written)
    assert any("digest NOT IN" in text for text in written)
    for text, values in written.items():
        if not text.startswith(("INSERT INTO coordinators", "INSERT INTO workers")):
            steps = plan(connection, text, values)
            assert not [step for step in steps if WHOLE.search(step)], f"{text}\n{steps}"


def prune(store: Store) -> None:
    """Everything that pruning does, whatever there is to find."""
    store.be_pruned()
    store.rows("UPDATE jobs SET finished_at = ? WHERE id = 1", NOW)
    for sweep in (DOOMED_ATTEMPTS, OLD_ATTEMPTS, SAMPLES, READINGS, DOCUMENTS):
        store.write(lambda tx, sweep=sweep: sweep_some(tx, sweep, 5, NOW + 1, [1]))
    while store.write(lambda tx: remove_some(tx, 1, NOW + 1)) is not None:
        pass


def test_no_step_of_pruning_reads_a_table_whole(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    prune(store)
    written = {text: values for text, values in connection.seen.items() if ":" in text}
    assert sum(text.startswith("DELETE") for text in written) == 17
    sqlite3.Connection.execute(connection, "PRAGMA foreign_keys=OFF")
    for text, values in written.items():
        steps = plan(connection, text, values)
        # Only lists that are given, and the rows that a step has found, are read whole.
        whole = [step for step in steps if re.match(r"SCAN (?!json_each|anon|family|\(subquery)", step)]
        assert not whole, f"{text}\n{steps}"


def test_what_needs_a_document_or_a_reading_is_found_by_its_index(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    prune(store)
    needed = ("ix_job_documents_reading", "ix_prompts_own_reading")
    for sweep, indexes in ((READINGS, needed), (DOCUMENTS, (*needed, "ix_job_documents_document"))):
        steps = named(connection, sweep.page)
        assert all(any(index in step for step in steps) for index in indexes), steps
        assert "SEARCH next USING INTEGER PRIMARY KEY (rowid>?)" in steps, steps


def test_an_answer_to_reuse_is_found_by_the_index_of_what_is_answered(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    manage(store)
    steps = named(connection, reuse._COPY)
    assert any("ix_prompts_answered (reading_id=?)" in step for step in steps), steps


def test_the_copies_of_a_file_are_found_by_its_document(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    manage(store)
    steps = named(connection, parts._MARK_COPIES)
    assert any("ix_job_documents_job_id_document_id (job_id=? AND document_id=?)" in step for step in steps), steps


def test_nothing_that_a_coordinator_does_reads_all_prompts_or_attempts(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    work(store)
    # For a new row that others may refer to, a plan names scans that SQLite runs only to mend a broken reference.
    registered = ("INSERT INTO coordinators", "INSERT INTO workers")
    seen = connection.seen.items()
    written = {text: values for text, values in seen if ":" in text and not text.startswith(registered)}
    assert len(written) > 20
    for text, values in written.items():
        steps = plan(connection, text, values)
        assert not [step for step in steps if WHOLE.search(step)], f"{text}\n{steps}"


def test_nothing_that_a_book_takes_reads_all_prompts(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    read_in_parts(store)
    written = {text: values for text, values in connection.seen.items() if ":" in text}
    assert any("INSERT INTO job_parts" in text for text in written)
    for text, values in written.items():
        if not text.startswith(("INSERT INTO coordinators", "INSERT INTO workers")):
            steps = plan(connection, text, values)
            assert not [step for step in steps if WHOLE.search(step)], f"{text}\n{steps}"
    for statement in (claims._BELOW, results._BELOW):
        assert any("ix_prompts_parent (parent_id=?)" in step for step in named(connection, statement))


def test_a_reading_is_picked_by_the_index_alone_and_sorted_by_nothing(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    work(store)
    steps = named(connection, claims.PICK_READING)
    assert any(re.match(r"SEARCH prompts USING INDEX ix_prompts_ready \(job_id=\?", step) for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


def test_the_prompts_of_a_reading_are_taken_by_its_index(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    work(store)
    steps = named(connection, claims.TAKE)
    assert "SEARCH prompts USING INDEX ix_prompts_ready_reading (reading_id=?)" in steps, steps


def test_leases_are_found_by_the_index_of_what_is_held(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    me = store.coordinator()
    store.must_take(me, store.worker("studio"))
    connection.seen = {}
    store.write(lambda tx: reclaim(tx, me, NOW))
    store.write(lambda tx: release_strangers(tx, me, set()))
    searched = {
        text: values for text, values in connection.seen.items() if "prompts.holder" in text.partition("WHERE")[2]
    }
    assert len(searched) >= 2
    for text, values in searched.items():
        steps = plan(connection, text, values)
        assert any("ix_prompts_held" in step for step in steps), f"{text}\n{steps}"


def test_lost_attempts_are_found_by_the_index_of_the_open_ones(recorded: tuple[SqliteStore, Recorder]) -> None:
    store, connection = recorded
    work(store)
    assert any("ix_attempts_open" in step for step in named(connection, leases._LOST))


async def test_looking_at_a_job_reads_neither_all_prompts_nor_all_attempts(
    recorded: tuple[SqliteStore, Recorder],
) -> None:
    store, connection = recorded
    async with aiosqlite.connect(store.path) as opened:
        reader = RecordingReader(store.path, opened)
        await reader.jobs()
        await reader.job(1)
        await reader.held(1)
        await reader.paused()
        await reader.sources(1)
        await reader.unreadable(1)
        await reader.failures(1, 5)
        await reader.workers()
        await reader.recent_attempts()
        await reader.unfinished()
        await reader.costs(1)
        await reader.speeds(MODEL)
        document = (await reader.documents(1, None))[0]["document_id"]
        await reader.answers(1, document, None)
        await reader.templates(1)
        await reader.requests(1, 0)
    assert len(reader.seen) == 16
    for text, values in reader.seen.items():
        steps = plan(connection, text, values)
        assert not [step for step in steps if WHOLE.search(step)], f"{text}\n{steps}"
