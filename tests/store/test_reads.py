"""Reading, for people and for programs: nothing that reads can change or create a database."""

import asyncio
from pathlib import Path

import pytest

from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.models import ErrorClass
from distllm.store.database import open_database
from distllm.store.fleet import register
from distllm.store.reads import open_reader, query
from tests.store.store_kit import NOW, Store, add_job, end, paper


async def test_a_query_gives_names_rows_and_whether_there_is_more(store: Store) -> None:
    add_job(store, ["one", "two", "three"])
    names, rows, more = await query(store.path, "SELECT id, tokens FROM prompts ORDER BY id", 2)
    assert (names, rows, more) == (["id", "tokens"], [(1, 113), (2, 113)], True)
    assert (await query(store.path, "SELECT id FROM prompts", 3))[2] is False


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT upper('x') AS up", [("X",)]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT sum(i) FROM n", [(6,)]),
        ("SELECT state, total FROM job_progress", [("pending", 1)]),
        ("SELECT count(*) FROM answers a JOIN failures f ON f.job_id = a.job_id", [(0,)]),
        ("  -- a comment first\n SELECT 7;", [(7,)]),
        ("SELECT value FROM json_each('[7]')", [(7,)]),
        ("SELECT json_extract('{\"a\": [7]}', '$.a[0]')", [(7,)]),
        ("VALUES (1), (2)", [(1,), (2,)]),
    ],
)
async def test_what_reads_is_allowed(store: Store, statement: str, rows: list[tuple[object, ...]]) -> None:
    add_job(store, ["a paper"])
    assert (await query(store.path, statement, 10))[1] == rows


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1)",
        "UPDATE jobs SET paused_at = 1",
        "DELETE FROM prompts",
        "WITH gone AS (SELECT 1) DELETE FROM prompts",
        "DROP TABLE prompts",
        "ATTACH DATABASE 'other.db' AS other",
        "VACUUM INTO 'other.db'",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = OFF",
        "CREATE TEMP TABLE t (a)",
        "CREATE TABLE t (a)",
        "SELECT load_extension('other')",
        "SELECT 1; DELETE FROM prompts",
        "BEGIN IMMEDIATE",
        "REINDEX",
        "ANALYZE",
        "no SQL at all",
        "SELECT nothing FROM nowhere",
        "SELECT :unbound",
    ],
)
async def test_what_does_not_only_read_is_refused_and_changes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    with pytest.raises(UsageError) as refused:
        await query(path, statement, 10)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} <= {"d.db", "d.db-wal", "d.db-shm"}


async def test_looking_never_creates_a_database(tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    with pytest.raises(DistllmError, match="there is no database"):
        await query(missing, "SELECT 1", 1)
    with pytest.raises(DistllmError, match="there is no database"):
        async with open_reader(missing):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_query_is_answered_while_the_writer_commits(path: Path) -> None:
    async with open_database(path) as database:
        writes = [asyncio.create_task(database.write(lambda tx: register(tx, "here", 1, NOW))) for _ in range(60)]
        seen = []
        while not all(write.done() for write in writes):
            seen.append((await query(path, "SELECT count(*) FROM coordinators", 1))[1][0][0])
        await asyncio.gather(*writes)
        assert seen == sorted(seen)
        assert (await query(path, "SELECT count(*) FROM coordinators", 1))[1] == [(60,)]


async def test_a_query_goes_on_beside_a_transaction_that_is_open(store: Store) -> None:
    store.connection.execute("BEGIN IMMEDIATE")
    store.connection.execute("INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1)")
    assert (await query(store.path, "SELECT count(*) FROM coordinators", 1))[1] == [(0,)]
    store.connection.execute("ROLLBACK")


async def test_a_jobs_figures_are_those_of_its_rows(store: Store) -> None:
    job = add_job(store, ["one", "two", "one", paper("", data=b"scan", problem="no text")], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    leases = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, leases[0])))
    store.settle(end(store.send(me, worker, leases[1]), ErrorClass.INPUT))
    async with open_reader(store.path) as reader:
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


async def test_the_pace_is_that_of_the_newest_coordinator(store: Store) -> None:
    add_job(store, ["one", "two", "three"])
    old, worker = store.coordinator(), store.worker("studio")
    store.settle(end(store.send(old, worker, store.must_take(old, worker).leases[0])))
    me = store.coordinator()
    sent = [store.send(me, worker, store.must_take(me, worker).leases[0], NOW + 50 + turn) for turn in range(2)]
    store.settle(end(sent[0], now=NOW + 60))
    async with open_reader(store.path) as reader:
        assert await reader.recent_attempts() == {"ended": 1, "since": NOW + 50, "answers": 1}
        held = await reader.held(me)
    assert held == {(sent[1].lease.prompt_id, 1)}
