"""`distllm query` on PostgreSQL: whatever a statement says, it only reads, and it ends."""

import asyncio
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import asyncpg
import pytest

from distllm.cli.app import run
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.places import PostgresUrl
from distllm.store import queries
from distllm.store.queries import Query, open_query
from tests.cli.conftest import Done

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1::bigint UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"
VIEWS = "answers, failures, job_progress, part_progress, worker_stats"


def execute(url: str, *statements: str) -> list[Any]:
    """Run statements as the owner, in a session of their own; the value of each."""

    async def work() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return [await connection.fetchval(statement) for statement in statements]
        finally:
            await connection.close()

    return asyncio.run(work())


def ask(url: str, statement: str, seconds: float = 30.0) -> list[tuple[Any, ...]]:
    with open_query(PostgresUrl(url), statement, seconds) as query:
        return list(chain.from_iterable(query.pages()))


@pytest.fixture
def sessions(postgres_url: str) -> Iterator[None]:
    """Whatever a test asks leaves no session behind."""
    yield
    until = time.monotonic() + 10
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while execute(postgres_url, count) != [0]:
        assert time.monotonic() < until, execute(postgres_url, "SELECT array_agg(query) FROM pg_stat_activity")
        time.sleep(0.02)


pytestmark = pytest.mark.usefixtures("sessions")


def test_a_query_gives_names_and_rows(postgres_url: str) -> None:
    with open_query(PostgresUrl(postgres_url), "SELECT 1 AS id, 'a' AS b, 7 AS id", 30) as query:
        assert query.names == ["id", "b", "id_2"]
        assert list(query.pages()) == [[(1, "a", 7)]]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT upper('x') AS up", [("X",)]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT sum(i) FROM n", [(6,)]),
        ("SELECT count(*) FROM job_progress", [(0,)]),
        ("  -- a comment first\n SELECT 7;", [(7,)]),
        ("VALUES (1), (2)", [(1,), (2,)]),
        ("SELECT count(*) FROM information_schema.views WHERE table_name = 'answers'", [(1,)]),
        ("SELECT 1 WHERE false", []),
        ("SELECT true, 1.5, 1.0::numeric, avg(i), 'NaN'::float8, NULL FROM generate_series(1, 2) i",
         [(1, 1.5, 1.0, 1.5, None, None)]),
        ("SELECT 'Infinity'::numeric, 10::numeric ^ 20, 'x'::bytea", [(float("inf"), 1e20, b"x")]),
        ("SELECT array['a', 'b'], '{\"a\": 1}'::json, date '2026-01-02', row(1, 'x')",
         [('["a", "b"]', '{"a": 1}', "2026-01-02", '[1, "x"]')]),
    ],
)  # fmt: skip
def test_what_reads_is_allowed(postgres_url: str, statement: str, rows: list[tuple[object, ...]]) -> None:
    assert ask(postgres_url, statement) == rows


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1)",
        "INSERT INTO coordinators (host, pid, started_at) VALUES ('x', 1, 1) RETURNING id",
        "UPDATE jobs SET paused_at = 1",
        "WITH gone AS (DELETE FROM prompts RETURNING id) SELECT * FROM gone",
        "/* SELECT */ DELETE FROM prompts",
        "SELECT 1; DELETE FROM prompts",
        "SELECT 1; SELECT 2",
        "DROP TABLE prompts",
        "TRUNCATE prompts",
        "CREATE TEMP TABLE t (a int)",
        "CREATE TABLE t AS SELECT 1 AS a",
        "SELECT 1 AS a INTO t",
        "SELECT nextval('jobs_id_seq')",
        "SELECT * FROM jobs FOR UPDATE",
        "EXPLAIN ANALYZE DELETE FROM prompts",
        "COPY jobs TO '/tmp/jobs'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "DO $$ BEGIN DELETE FROM prompts; END $$",
        "VACUUM",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SET TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "RESET ROLE",
        "LISTEN distllm",
        "NOTIFY distllm",
        "LOCK TABLE prompts",
        "LOAD 'auto_explain'",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT SET_CONFIG('role', 'postgres', true)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT PG_Read_File('/etc/passwd')",
        "SELECT \"pg_read_file\"('/etc/passwd')",
        "SELECT pg_catalog.pg_read_file('/etc/passwd')",
        "SELECT U&\"\\0070g_read_file\"('/etc/passwd')",
        "SELECT u&\"\\0070g_read_file\"('/etc/passwd')",
        "SELECT pg_sleep(60)",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_notify('distllm', '')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT loread(0, 1)",
        "SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t(a int)",
        "SELECT query_to_xml('SELECT pg' || '_read_file(''/etc/passwd'')', true, true, '')",
        "SELECT * FROM ts_stat('SELECT pg' || '_sleep(60)')",
        "SELECT * FROM pg_shadow",
        "SELECT $1",
        "SELECT :unbound",
        "no SQL at all",
        "SELECT nothing FROM nowhere",
        "SELECT nothing('x')",
        "SELECT 1 / 0",
        "SELECT '\udcff'",
        "SELECT '\0'",
        "",
        "-- only a comment",
        ";",
    ],
)
def test_what_does_not_only_read_is_refused_and_changes_nothing(postgres_url: str, statement: str) -> None:
    count = "SELECT (SELECT count(*) FROM coordinators) + (SELECT last_value FROM jobs_id_seq)"
    tables = "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relkind = 'r'"
    before = execute(postgres_url, count, tables)
    with pytest.raises(UsageError) as refused:
        ask(postgres_url, statement)
    assert "\n" not in str(refused.value)
    assert execute(postgres_url, count, tables) == before


@pytest.fixture
def reader(postgres_url: str) -> Iterator[None]:
    """The role that may only read the views."""
    execute(
        postgres_url,
        "CREATE ROLE distllm_reader NOLOGIN",
        f"GRANT SELECT ON {VIEWS} TO distllm_reader",
    )
    yield
    execute(postgres_url, "DROP OWNED BY distllm_reader", "DROP ROLE distllm_reader")


@pytest.mark.usefixtures("reader")
def test_where_there_is_a_role_for_it_only_the_views_are_read(postgres_url: str) -> None:
    assert ask(postgres_url, "SELECT current_user") == [("distllm_reader",)]
    for view in VIEWS.split(", "):
        assert ask(postgres_url, f"SELECT * FROM {view}") == []
    for table in ("prompts", "documents", "coordinators"):
        with pytest.raises(UsageError, match=f"permission denied for table {table}; the role distllm_reader may only"):
            ask(postgres_url, f"SELECT * FROM {table}")
    for escape in ("SELECT set_config('role', 'none', true)", "RESET ROLE", "SET ROLE postgres"):
        with pytest.raises(UsageError):
            ask(postgres_url, escape)


@pytest.mark.usefixtures("reader")
def test_who_is_no_member_of_the_role_asks_as_before(postgres_url: str) -> None:
    execute(postgres_url, "CREATE ROLE somebody LOGIN", "GRANT SELECT ON alembic_version, readings, jobs TO somebody")
    try:
        assert ask(postgres_url.replace("postgres@", "somebody@"), "SELECT current_user") == [("somebody",)]
    finally:
        execute(postgres_url, "DROP OWNED BY somebody", "DROP ROLE somebody")


@pytest.mark.parametrize("what", ["count(*)", "i"])
def test_a_query_without_end_is_stopped(postgres_url: str, what: str) -> None:
    began = time.monotonic()
    with pytest.raises(DistllmError, match=r"stopped after 0\.1 s") as stopped:
        ask(postgres_url, f"{ENDLESS.format(what)} WHERE i < 0", 0.1)
    assert not isinstance(stopped.value, UsageError)
    assert time.monotonic() - began < 5


def test_the_server_stops_it_also_where_nobody_waits_any_more(postgres_url: str) -> None:
    timeout = "SELECT current_setting('statement_timeout')"
    assert ask(postgres_url, timeout, 2) == [("3s",)]
    assert ask(postgres_url, timeout, float("inf")) == [("0",)]


def test_its_time_is_what_is_waited_for_and_not_what_is_done_with_its_rows(postgres_url: str) -> None:
    released = threading.Event()
    with open_query(PostgresUrl(postgres_url), f"{ENDLESS.format('i')} LIMIT 1000", 1.0) as query:
        pages = query.pages()
        assert next(pages)[0] == (1,)
        released.wait(1.2)
        assert sum(len(page) for page in pages) == 999


def test_rows_without_end_are_read_as_far_as_they_are_wanted_in_little_memory(postgres_url: str) -> None:
    place = PostgresUrl(postgres_url)
    tracemalloc.start()
    try:
        with open_query(place, ENDLESS.format("i, 'a text of some length ' || i"), 30) as query:
            assert sum(len(page) for page in islice(query.pages(), 100)) > 15_000
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with open_query(place, ENDLESS.format("repeat('x', 1000000)"), 30) as query:
            assert all(len(page) == 1 for page in islice(query.pages(), 20))
        assert tracemalloc.get_traced_memory()[1] < before + 15_000_000
    finally:
        tracemalloc.stop()


def put_aside(query: Query) -> None:
    """Wait until the rest has been put aside."""
    assert query._watch is not None
    query._watch.join(timeout=20)
    assert query._aside is not None


IN_TRANSACTION = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL"


def test_rows_that_nobody_takes_are_put_aside_and_the_transaction_is_let_go(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    with open_query(PostgresUrl(postgres_url), f"{ENDLESS.format('i')} LIMIT 5000", 30) as query:
        pages = query.pages()
        first = next(pages)
        put_aside(query)
        until = time.monotonic() + 10
        # The one that asks counts itself.
        while execute(postgres_url, IN_TRANSACTION) != [1]:
            assert time.monotonic() < until
        assert first + list(chain.from_iterable(pages)) == [(number,) for number in range(1, 5001)]


def test_no_more_is_put_aside_than_is_wanted(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    with open_query(PostgresUrl(postgres_url), ENDLESS.format("i"), 30, rows=5_001) as query:
        pages = query.pages()
        next(pages)
        put_aside(query)
        assert list(chain.from_iterable(pages))[-1] == (5_001,)


def test_who_goes_away_does_not_wait_for_what_is_put_aside(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "TAKEN_SECONDS", 0.0)
    monkeypatch.setattr(queries, "LARGEST_REST", 10**12)
    began = time.monotonic()
    with open_query(PostgresUrl(postgres_url), ENDLESS.format("i"), 3600) as query:
        next(query.pages())
        watch = query._watch
    assert watch is not None
    watch.join(timeout=20)
    assert not watch.is_alive()
    assert time.monotonic() - began < 20


def query(url: str, *arguments: str, capfd: pytest.CaptureFixture[str]) -> Done:
    """Run the command in this process."""
    code = run(["--db", url, "query", *arguments])
    out, err = capfd.readouterr()
    return Done(code, out, err)


def test_the_command_prints_what_was_found(postgres_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(postgres_url, "--json", "select 'é' as a, 2 as b, null as c", capfd=capfd)
    assert json.loads(done.out) == [{"a": "é", "b": 2, "c": None}]
    done = query(postgres_url, "--format", "csv", "--limit", "3", ENDLESS.format("i"), capfd=capfd)
    assert done.out.split() == ["i", "1", "2", "3"]
    assert "only the first 3 rows are shown" in done.err
    done = query(postgres_url, "select count(*) as n from answers", capfd=capfd)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select answr from answers", 'column "answr" does not exist; `select table_name, column_name from'),
        ("select pg_sleep(1)", "pg_sleep is not for queries"),
        ("delete from jobs", "asks nothing"),
    ],
)
def test_a_mistake_is_one_line(postgres_url: str, statement: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(postgres_url, statement, capfd=capfd)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_an_empty_database_and_a_server_that_is_away_are_told(
    postgres_url: str, empty_postgres_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for url, said in ((empty_postgres_url, "is empty"), ("postgresql://u:secret@127.0.0.1:1/x", "is out of reach")):
        done = query(url, "select 1", capfd=capfd)
        assert done.code == 1
        assert said in done.err
        assert done.err.count("\n") == 1
        assert "secret" not in done.err
