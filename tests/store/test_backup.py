"""A copy is whole, or it is not there."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distllm.domain.errors import DistllmError, UsageError
from distllm.store import backup
from distllm.store.backup import back_up
from distllm.store.locks import coordinator_lock
from distllm.store.migrate import upgrade
from tests.store.store_kit import SqliteStore, add_job


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    """A new database file: what is told here is of SQLite alone."""
    return sqlite_store


def silent(done: int, total: int) -> None:
    """No progress is wanted."""


def papers(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute("SELECT text FROM documents ORDER BY id").fetchall()


def test_a_copy_holds_everything_and_needs_no_file_beside_it(store: SqliteStore, tmp_path: Path) -> None:
    add_job(store, ["one", "two"])
    assert store.path.with_name("d.db-wal").stat().st_size > 0
    store.path.chmod(0o640)
    target = tmp_path / "copy.db"
    size = back_up(store.path, target, silent)
    assert papers(target) == [("one",), ("two",)]
    assert target.stat().st_size == size
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir() if "copy" in file.name) == ["copy.db"]


def test_what_is_written_meanwhile_neither_enters_nor_restarts_it(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(store, ["one", "x" * 500_000])
    monkeypatch.setattr(backup, "PAGES_AT_A_TIME", 8)
    seen: list[int] = []

    def write(done: int, total: int) -> None:
        seen.append(done)
        add_job(store, [f"written after {done} of {total} bytes"])

    target = tmp_path / "copy.db"
    back_up(store.path, target, write)
    assert len(seen) > 10
    assert seen == sorted(seen)
    assert [len(text) for (text,) in papers(target)] == [3, 500_000]
    assert store.value("SELECT count(*) FROM documents") == 2 + len(seen)


def test_an_earlier_copy_is_replaced(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    back_up(store.path, target, silent)
    add_job(store, ["new"])
    back_up(store.path, target, silent)
    assert papers(target) == [("new",)]


@pytest.mark.parametrize("name", ["d.db", "d.db-wal", "link.db", "hard.db", "folder/../d.db"])
def test_the_database_itself_is_never_overwritten(store: SqliteStore, tmp_path: Path, name: str) -> None:
    add_job(store, ["kept"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.db").symlink_to(store.path)
    (tmp_path / "hard.db").hardlink_to(store.path)
    with pytest.raises(UsageError, match="the database itself"):
        back_up(store.path, tmp_path / name, silent)
    assert store.value("SELECT text FROM documents") == "kept"


def test_a_database_in_use_and_a_file_that_is_no_copy_are_left_alone(store: SqliteStore, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    upgrade(other)
    with coordinator_lock(other), pytest.raises(UsageError, match="in use"):
        back_up(store.path, other, silent)
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear aunt")
    with pytest.raises(UsageError, match="no earlier copy"):
        back_up(store.path, letter, silent)
    assert letter.read_text() == "Dear aunt"
    for place in (tmp_path, tmp_path / "missing" / "copy.db"):
        with pytest.raises(UsageError):
            back_up(store.path, place, silent)


def test_a_copy_that_fails_leaves_the_earlier_one_and_nothing_else(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    back_up(store.path, target, silent)
    add_job(store, ["x" * 500_000])

    def fail(done: int, total: int) -> None:
        raise OSError("no space left on device")

    with pytest.raises(DistllmError, match="no space left"):
        back_up(store.path, target, fail)
    assert papers(target) == []
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]


def test_a_damaged_database_is_not_copied_as_if_it_were_whole(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        add_job(SqliteStore(path, connection), ["x" * 50_000])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xaa" * 8192)
    with pytest.raises(DistllmError, match="copy"):
        back_up(path, tmp_path / "copy.db", silent)
    assert not (tmp_path / "copy.db").exists()
