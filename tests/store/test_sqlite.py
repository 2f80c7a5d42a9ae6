"""The one writer: whole transactions, patience with outsiders, and what callers are told."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from distllm.domain.errors import DistllmError
from distllm.store import sqlite
from distllm.store.database import open_database
from distllm.store.fleet import register
from distllm.store.sqlite import Writer, has_wal_reset_bug
from distllm.store.tables import coordinators
from distllm.store.tx import StoreError, Tx
from tests.store.store_kit import NOW


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    opened = Writer(path)
    yield opened
    await opened.close()


def rows_of(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


async def test_a_transaction_is_committed_when_its_caller_is_told(path: Path, writer: Writer) -> None:
    me = await writer.run(lambda tx: register(tx, "here", 1, NOW))
    assert rows_of(path, "SELECT id, host FROM coordinators") == [(me, "here")]


@pytest.mark.parametrize("error", [KeyError("a mistake"), DistllmError("a reason"), KeyboardInterrupt("stop")])
async def test_an_error_in_a_transaction_undoes_it_and_reaches_the_caller(
    path: Path, writer: Writer, error: BaseException
) -> None:
    def transaction(tx: Tx) -> None:
        register(tx, "here", 1, NOW)
        raise error

    with pytest.raises(type(error)) as raised:
        await writer.run(transaction)
    assert raised.value is error
    assert rows_of(path, "SELECT * FROM coordinators") == []
    await writer.run(lambda tx: register(tx, "there", 1, NOW))
    assert rows_of(path, "SELECT host FROM coordinators") == [("there",)]


async def test_an_error_of_the_database_undoes_the_transaction_and_is_one_line(path: Path, writer: Writer) -> None:
    def transaction(tx: Tx) -> None:
        register(tx, "here", 1, NOW)
        register(tx, None, 1, NOW)  # type: ignore[arg-type]  # what no caller does

    with pytest.raises(StoreError, match="NOT NULL") as raised:
        await writer.run(transaction)
    assert not raised.value.passing
    assert "\n" not in str(raised.value)
    assert rows_of(path, "SELECT * FROM coordinators") == []


async def test_transactions_happen_in_the_order_they_were_asked_for(path: Path, writer: Writer) -> None:
    ids = await asyncio.gather(*(writer.run(lambda tx, n=n: register(tx, f"host {n}", n, NOW)) for n in range(50)))
    assert list(ids) == sorted(ids)
    assert rows_of(path, "SELECT pid FROM coordinators ORDER BY id") == [(n,) for n in range(50)]


async def test_what_was_asked_for_before_closing_is_done(path: Path) -> None:
    writer = Writer(path)
    asked = [asyncio.create_task(writer.run(lambda tx, n=n: register(tx, "here", n, NOW))) for n in range(5)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await writer.close()
    assert sorted(task.result() for task in asked) == [1, 2, 3, 4, 5]


async def test_a_caller_that_goes_away_harms_no_other(path: Path, writer: Writer) -> None:
    gone = asyncio.create_task(writer.run(lambda tx: register(tx, "gone", 1, NOW)))
    await asyncio.wait([gone], timeout=0)
    gone.cancel()
    assert await writer.run(lambda tx: register(tx, "here", 1, NOW)) == 2


async def test_answers_are_safe_from_power_loss(writer: Writer) -> None:
    def settings(tx: Tx) -> list[object]:
        return [
            tx._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "fullfsync", "foreign_keys")
        ]

    assert await writer.run(settings) == ["wal", 2, 1, 1]


async def test_a_full_database_is_said_to_be_full_and_may_be_tried_again(path: Path, writer: Writer) -> None:
    await writer.run(lambda tx: tx._connection.execute("PRAGMA max_page_count = 1").fetchall())

    def much(tx: Tx) -> None:
        for number in range(200):
            register(tx, "h" * 4000, number, NOW)

    with pytest.raises(StoreError, match="make room") as raised:
        await writer.run(much)
    assert raised.value.passing
    await writer.run(lambda tx: tx._connection.execute("PRAGMA max_page_count = 100000").fetchall())
    assert rows_of(path, "SELECT * FROM coordinators") == []
    await writer.run(much)
    assert rows_of(path, "SELECT count(*) FROM coordinators") == [(200,)]


_OUTSIDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


async def test_an_outsider_that_holds_the_database_only_delays_a_write_and_is_told_of(
    path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "SAY_AFTER_SECONDS", 0.0)
    outsider = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OUTSIDER, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert outsider.stdout is not None
    assert await outsider.stdout.readline() == b"held\n"
    write = asyncio.create_task(writer.run(lambda tx: register(tx, "here", 1, NOW)))
    done, _ = await asyncio.wait([write], timeout=2.5)
    assert not done
    assert caplog.messages == [f"{path} is held by another program; waiting up to 60 s"]
    await outsider.communicate(b"\n")
    assert await asyncio.wait_for(write, 10) == 1
    assert rows_of(path, "SELECT host FROM coordinators") == [("here",)]


async def test_a_reader_sees_only_whole_transactions(path: Path) -> None:
    def pair(tx: Tx) -> None:
        register(tx, "left", 1, NOW)
        register(tx, "right", 1, NOW)

    async with open_database(path) as database:
        seen = []
        before = await database.read.changes()
        for _ in range(20):
            write = asyncio.create_task(database.write(pair))
            seen.append((await database.read.rows("SELECT count(*) AS n FROM coordinators"))[0]["n"])
            await write
        assert all(count % 2 == 0 for count in seen)
        assert seen == sorted(seen)
        assert await database.read.changes() != before


async def test_the_one_reader_of_a_database_cannot_write(path: Path) -> None:
    async with open_database(path) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read.rows("DELETE FROM jobs")


async def test_a_database_in_a_folder_that_is_missing_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(DistllmError, match="does not exist"):
        async with open_database(tmp_path / "nowhere" / "d.db"):
            pass


async def test_an_opened_database_is_closed_without_a_log_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    async with open_database(path) as database:
        await database.write(lambda tx: register(tx, "here", 1, NOW))
        assert await database.write(lambda tx: tx.value(select(coordinators.c.host), {})) == "here"
    assert not path.with_name("d.db-wal").exists()
    assert rows_of(path, "SELECT host FROM coordinators") == [("here",)]


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_versions_that_can_damage_a_database_are_known(version: tuple[int, ...], has_it: bool) -> None:
    assert has_wal_reset_bug(version) is has_it


async def test_a_write_that_an_outsider_holds_up_ends_soon_once_it_is_told_to_hurry(path: Path, writer: Writer) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as outsider:
        outsider.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(writer.run(lambda tx: register(tx, "here", 1, NOW)))
        done, _ = await asyncio.wait([write], timeout=0.2)
        assert not done
        writer.hurry(0.1)
        with pytest.raises(StoreError, match="locked") as raised:
            await asyncio.wait_for(write, 10)
        assert raised.value.passing
        outsider.execute("ROLLBACK")
    writer.hurry(None)
    assert await writer.run(lambda tx: register(tx, "here", 1, NOW)) == 1


async def test_a_writer_whose_folder_has_gone_says_so_and_ends_in_silence(path: Path) -> None:
    folder = path.parent / "gone"
    folder.mkdir()
    writer = Writer(Path(shutil.move(path, folder)))
    await writer.run(lambda tx: register(tx, "here", 1, NOW))
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="could not be written"):
        await writer.run(lambda tx: register(tx, "here", 2, NOW))
    # What its thread raised would be a warning, and so fail here.
    await writer.close()


def log_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def much(tx: Tx) -> None:
    """More than SQLite waits for before it empties the log."""
    for number in range(120):
        register(tx, "h" * 40_000, number, NOW)


async def test_a_log_that_a_reader_has_made_long_is_cut_once_the_reader_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "KEPT_LOG_BYTES", 100_000)
    writer = Writer(path)
    await writer.run(lambda tx: register(tx, "here", 1, NOW))
    with closing(sqlite3.connect(path)) as reader:
        cursor = reader.execute("SELECT name FROM sqlite_master")
        cursor.fetchone()
        for _ in range(3):
            await writer.run(much)
        assert log_bytes(path) > 12_000_000
        cursor.close()
    for _ in range(2):
        await writer.run(lambda tx: register(tx, "here", 1, NOW))
    assert log_bytes(path) <= 100_000
    await writer.close()


async def test_beyond_its_bound_the_log_is_emptied_or_nothing_is_written(
    path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LONGEST_LOG_BYTES", 100_000)
    for number in range(4):
        await writer.run(lambda tx, number=number: register(tx, "here", number, NOW))
    with closing(sqlite3.connect(path)) as reader:
        cursor = reader.execute("SELECT id FROM coordinators")
        cursor.fetchone()
        await writer.run(much)
        with pytest.raises(StoreError, match=r"write-ahead log .* close that program") as raised:
            await writer.run(lambda tx: register(tx, "here", 1, NOW))
        assert raised.value.passing
        length = log_bytes(path)
        # Who must go has its last word.
        writer.hurry(5.0)
        await writer.run(lambda tx: register(tx, "last", 1, NOW))
        assert log_bytes(path) > length
        writer.hurry(None)
        cursor.close()
    await writer.run(lambda tx: register(tx, "after", 1, NOW))
    assert log_bytes(path) < length
    assert rows_of(path, "SELECT host FROM coordinators ORDER BY id DESC LIMIT 2") == [("after",), ("last",)]
