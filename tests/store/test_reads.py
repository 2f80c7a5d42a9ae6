"""Reading, for people and for programs: nothing that reads can change or create a database."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from distllm.domain.errors import DistllmError
from distllm.domain.models import ErrorClass
from distllm.domain.policy import Failed
from distllm.insights import own_prompts, papers
from distllm.store import exports
from distllm.store.fleet import register, retire
from distllm.store.reads import Reader, open_reader
from tests.store.store_kit import NOW, SqliteStore, Store, add_job, end, paper
from tests.store.test_requests import batch


async def test_looking_never_creates_a_database(tmp_path: Path) -> None:
    with pytest.raises(DistllmError, match="there is no database"):
        async with open_reader(tmp_path / "none.db"):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_jobs_figures_are_those_of_its_rows(store: Store) -> None:
    job = add_job(store, ["one", "two", "one", paper("", data=b"scan", problem="no text")], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    leases = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, leases[0])))
    store.settle(end(store.send(me, worker, leases[1]), ErrorClass.INPUT))
    async with open_reader(store.place) as reader:
        found = await reader.job(job)
        assert found is not None
        told = ("state", "total", "pending", "leased", "done", "failed", "files", "unreadable", "copies", "submitted")
        assert [found[name] for name in told] == ["running", 4, 2, 0, 1, 1, 4, 1, 1, 1]
        assert (found["prompt_tokens"], found["cached_tokens"], found["completion_tokens"]) == (500, 400, 7)
        assert [each["job_id"] for each in await reader.jobs()] == [job]
        assert await reader.job(99) is None
        assert await reader.unreadable(job) == [{"document": "3.txt", "problem": "no text"}]
        assert [each["error"] for each in await reader.failures(job, 5)] == ["input, says the server"]
        assert [each["job_id"] for each in await reader.unfinished()] == [job]
        assert [each["document"] for each in await reader.documents(job, None)] == ["0.txt", "1.txt"]
        assert [each["document"] for each in await reader.documents(job, "1.txt")] == ["1.txt"]
        assert [each["name"] for each in await reader.templates(job)] == ["findings", "limits"]
        first = (await reader.documents(job, None))[0]["document_id"]
        answers = await reader.answers(job, first, None)
        assert {each["prompt"]: each["state"] for each in await reader.answers(job, first, "limits")}.keys() == {
            "limits"
        }
        assert len(answers) == 2


async def test_the_pace_is_that_of_those_who_coordinate(store: Store) -> None:
    add_job(store, ["one", "two", "three"])
    old, worker = store.coordinator(), store.worker("studio")
    store.settle(end(store.send(old, worker, store.must_take(old, worker).leases[0])))
    me = store.reclaim()
    sent = [store.send(me, worker, store.must_take(me, worker).leases[0], NOW + 50 + turn) for turn in range(2)]
    store.settle(end(sent[0], now=NOW + 60))
    async with open_reader(store.place) as reader:
        # Each paper has as many tokens as letters, and its question 10; the server told that it read 100.
        assert await reader.recent_attempts() == {
            "ended": 1,
            "since": NOW + 50,
            "answers": 1,
            "in_flight": 1,
            "known": 1,
            "read": 100,
            "written": 7,
            "reading": 13.0,
        }
        held = await reader.held(me)
        store.write(lambda tx: retire(tx, me, NOW + 70))
        assert (await reader.recent_attempts())["ended"] == 0
    assert held == {(sent[1].lease.prompt_id, 1)}


def log_is_emptied(store: SqliteStore) -> bool:
    """Write, and try to empty the log: nobody may hold what was before."""
    store.write(lambda tx: register(tx, "here", 1, NOW))
    with closing(sqlite3.connect(store.path, timeout=0)) as connection:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def every_iterator(reader: Reader, job: int) -> list[AsyncIterator[object]]:
    return [
        papers(reader, job, None, None),
        own_prompts(reader, job + 1),
        exports.file_pages(reader, job, 1),
        exports.loose_prompt_pages(reader, job + 1),
        exports.failure_pages(reader, job),
        exports.unreadable_pages(reader, job),
    ]


async def test_nobody_who_reads_on_keeps_the_log_from_being_emptied(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_store
    monkeypatch.setattr("distllm.store.reads.PAGE_ROWS", 1)
    monkeypatch.setattr(exports, "PAGE_ROWS", 1)
    scans = [paper("", data=data, problem="no text") for data in (b"scan 1", b"scan 2")]
    job = add_job(store, ["one", "two", *scans], ["findings", "limits"])
    batch(store, "key", ["Why?", "How?"])
    me, worker = store.coordinator(), store.worker("studio")
    while group := store.take(me, worker):
        for lease in group.leases:
            store.settle(end(store.send(me, worker, lease), ErrorClass.BROKEN, judged=Failed()))
    async with open_reader(store.place) as reader:
        for iterator in every_iterator(reader, job):
            assert await anext(iterator)
            assert log_is_emptied(store)
            assert await anext(iterator)
        await reader.changes()
        await reader.jobs()
        assert log_is_emptied(store)
        # A statement in its midst is what holds the log: this test can tell.
        async with reader._connection.execute("SELECT id FROM prompts") as cursor:
            await cursor.fetchone()
            assert not log_is_emptied(store)
