"""SQL of a user's own: whatever it says, it only reads, and it ends."""

import asyncio
import sqlite3
import threading
import time
import tracemalloc
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from distllm.domain.errors import DistllmError, UsageError
from distllm.store import queries
from distllm.store.database import open_database
from distllm.store.fleet import register
from distllm.store.queries import Query, open_query
from tests.store.store_kit import NOW, SqliteStore, add_job

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    """A new database file: what is told here is of SQLite alone."""
    return sqlite_store


def ask(path: Path, statement: str, seconds: float = 30.0) -> list[tuple[Any, ...]]:
    with open_query(path, statement, seconds) as query:
        return list(chain.from_iterable(query.pages()))


def test_a_query_gives_names_and_rows(store: SqliteStore) -> None:
    add_job(store, ["one", "two", "three"])
    with open_query(store.path, "SELECT id, tokens, 7 AS id FROM prompts ORDER BY id", 30) as query:
        assert query.names == ["id", "tokens", "id_2"]
        assert list(query.pages()) == [[(1, 113, 7), (2, 113, 7), (3, 115, 7)]]


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
        ("SELECT count(*) FROM sqlite_master WHERE name = 'answers'", [(1,)]),
        ("SELECT cast(x'61ff62' AS text), x'00'", [("a\ufffdb", b"\0")]),
        ("SELECT 1 WHERE 0", []),
    ],
)
def test_what_reads_is_allowed(store: SqliteStore, statement: str, rows: list[tuple[object, ...]]) -> None:
    add_job(store, ["a paper"])
    assert ask(store.path, statement) == rows


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1)",
        "INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1) RETURNING id",
        "REPLACE INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1)",
        "UPDATE jobs SET paused_at = 1",
        "DELETE FROM prompts",
        "WITH gone AS (SELECT 1) DELETE FROM prompts",
        "WITH new AS (SELECT 1) INSERT INTO refusals SELECT 1, 1 FROM new",
        "/* SELECT */ DELETE FROM prompts",
        "SELECT 1 /* ; */; DELETE FROM prompts",
        "DROP TABLE prompts",
        "ALTER TABLE prompts RENAME TO p",
        "ATTACH DATABASE 'other.db' AS other",
        "ATTACH DATABASE ':memory:' AS other",
        "DETACH DATABASE main",
        "VACUUM",
        "VACUUM INTO 'other.db'",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "SELECT * FROM pragma_table_info('jobs')",
        "SELECT * FROM pragma_wal_checkpoint",
        "EXPLAIN DELETE FROM prompts",
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP VIEW t AS SELECT 1",
        "CREATE TABLE t (a)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "SELECT load_extension('other')",
        "SELECT LOAD_EXTENSION('other')",
        "SELECT \"load_extension\"('other', 'main')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT fts3_tokenizer('simple', x'00')",
        "SELECT writefile('other.txt', 'x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT edit('x')",
        "UPDATE sqlite_master SET sql = ''",
        "SELECT 1; DELETE FROM prompts",
        "SELECT 1; SELECT 2",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "SAVEPOINT s",
        "REINDEX",
        "ANALYZE",
        "no SQL at all",
        "SELECT nothing FROM nowhere",
        "SELECT :unbound",
        "SELECT json_extract('{', '$')",
        "SELECT abs(-9223372036854775808)",
        "SELECT '\udcff'",
        "",
        "-- only a comment",
        ";",
    ],
)
def test_what_does_not_only_read_is_refused_and_changes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    with pytest.raises(UsageError) as refused:
        ask(path, statement)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} <= {"d.db", "d.db-wal", "d.db-shm"}


def test_a_view_that_another_program_made_cannot_do_more(store: SqliteStore) -> None:
    store.rows("CREATE VIEW trap AS SELECT load_extension('other') AS x")
    with pytest.raises(UsageError, match="unsafe use of load_extension"):
        ask(store.path, "SELECT * FROM trap")


@pytest.mark.parametrize("what", ["count(*)", "i"])
def test_a_query_without_end_is_stopped(path: Path, what: str) -> None:
    statement = f"{ENDLESS.format(what)} WHERE i < 0"
    began = time.monotonic()
    with pytest.raises(DistllmError, match=r"stopped after 0\.1 s") as stopped:
        ask(path, statement, 0.1)
    assert not isinstance(stopped.value, UsageError)
    assert time.monotonic() - began < 5


def test_its_time_is_what_is_waited_for_and_not_what_is_done_with_its_rows(path: Path) -> None:
    released = threading.Event()
    with open_query(path, f"{ENDLESS.format('i')} LIMIT 1000", 1.0) as query:
        pages = query.pages()
        assert next(pages)[0] == (1,)
        released.wait(1.2)
        assert sum(len(page) for page in pages) == 800


def test_rows_without_end_are_read_as_far_as_they_are_wanted_in_little_memory(path: Path) -> None:
    tracemalloc.start()
    try:
        with open_query(path, ENDLESS.format("i, 'a text of some length ' || i"), 30) as query:
            assert sum(len(page) for page in islice(query.pages(), 100)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.reset_peak()
        with open_query(path, ENDLESS.format("replace(hex(zeroblob(500000)), '0', 'x')"), 30) as query:
            assert all(len(page) == 1 for page in islice(query.pages(), 20))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_cell_larger_than_any_answer_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=r"substr\(\)"):
        ask(path, "SELECT zeroblob(70000000)")


def test_an_unknown_name_is_answered_with_where_names_stand(path: Path) -> None:
    with pytest.raises(UsageError, match="no such column: answr; `select name, sql from sqlite_master`"):
        ask(path, "SELECT answr FROM answers")


def test_looking_never_creates_a_database(tmp_path: Path) -> None:
    with pytest.raises(DistllmError, match="there is no database"):
        ask(tmp_path / "none.db", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


async def test_a_query_is_answered_while_the_writer_commits(path: Path) -> None:
    async with open_database(path) as database:
        writes = [asyncio.create_task(database.write(lambda tx: register(tx, "here", 1, NOW))) for _ in range(60)]
        seen = []
        while not all(write.done() for write in writes):
            rows = await asyncio.to_thread(ask, path, "SELECT count(*) FROM coordinators")
            seen.append(rows[0][0])
        await asyncio.gather(*writes)
        assert seen == sorted(seen)
        assert ask(path, "SELECT count(*) FROM coordinators") == [(60,)]


def test_a_query_goes_on_beside_a_transaction_that_is_open(store: SqliteStore) -> None:
    store.rows("BEGIN IMMEDIATE")
    store.rows("INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1)")
    assert ask(store.path, "SELECT count(*) FROM coordinators") == [(0,)]
    store.rows("ROLLBACK")


def test_a_damaged_database_is_told_in_one_line(store: SqliteStore, tmp_path: Path) -> None:
    add_job(store, [f"paper {number}" for number in range(200)])
    root = store.value("SELECT rootpage FROM sqlite_master WHERE name = 'documents'")
    damaged = tmp_path / "damaged.db"
    store.connection.execute("VACUUM INTO ?", (str(damaged),))
    with damaged.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 100)
    with pytest.raises(DistllmError, match=r"malformed.*distllm db check") as refused:
        ask(damaged, "SELECT * FROM documents")
    assert not isinstance(refused.value, UsageError)


MANY = ENDLESS.replace("FROM n)", "FROM n WHERE i < 1000)").format("i, name") + ", sqlite_master"


def log_is_held(path: Path) -> bool:
    """Whether something that reads keeps the log from being emptied."""
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return bool(busy)


def put_aside(query: Query) -> None:
    """Wait until the rest has been put aside."""
    assert query._watch is not None
    query._watch.join(timeout=20)
    assert query._aside is not None


def test_rows_that_nobody_takes_are_put_aside_and_the_log_is_let_go(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(store, ["a paper"])
    rows = ask(store.path, MANY)
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    with open_query(store.path, MANY, 30) as query:
        pages = query.pages()
        first = next(pages)
        put_aside(query)
        store.coordinator()
        assert not log_is_held(store.path)
        assert first + list(chain.from_iterable(pages)) == rows


def test_no_more_is_put_aside_than_is_wanted(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    with open_query(store.path, ENDLESS.format("i"), 30, rows=5_001) as query:
        pages = query.pages()
        next(pages)
        put_aside(query)
        assert list(chain.from_iterable(pages))[-1] == (5_001,)


def test_rows_that_are_taken_in_time_are_not_put_aside(store: SqliteStore) -> None:
    add_job(store, ["a paper"])
    with open_query(store.path, MANY, 30) as query:
        pages = query.pages()
        next(pages)
        store.coordinator()
        assert log_is_held(store.path)
        assert sum(map(len, pages)) > 1000
        assert query._aside is None


def test_more_than_can_be_put_aside_is_said_behind_what_was(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    monkeypatch.setattr(queries, "LARGEST_REST", 1_000_000)
    with open_query(store.path, ENDLESS.format("i"), 30) as query:
        pages = query.pages()
        next(pages)
        put_aside(query)
        taken: list[int] = []
        with pytest.raises(DistllmError, match="use a file"):
            taken.extend(map(len, pages))
        assert sum(taken) > 10_000


def test_who_goes_away_does_not_wait_for_what_is_put_aside(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    monkeypatch.setattr(queries, "LARGEST_REST", 10**12)
    began = time.monotonic()
    with open_query(store.path, ENDLESS.format("i"), 3600) as query:
        next(query.pages())
        watch = query._watch
    assert watch is not None
    watch.join(timeout=20)
    assert not watch.is_alive()
    assert time.monotonic() - began < 20
