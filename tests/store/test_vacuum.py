"""A file is shrunk whole or not at all."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from distllm.domain.errors import DistllmError
from distllm.store import vacuum as vacuums
from distllm.store.tx import StoreError
from distllm.store.vacuum import space_of, vacuum
from tests.store.store_kit import SqliteStore, add_job, assert_consistent

LONG = "x" * 100_000


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    """A new database file: what is told here is of SQLite alone."""
    return sqlite_store


@pytest.fixture
def holed(store: SqliteStore) -> SqliteStore:
    """A database of which most is free."""
    add_job(store, [f"paper {n} {LONG}" for n in range(30)])
    store.rows("UPDATE documents SET text = substr(text, 1, 10000)")
    return store


def test_what_is_free_is_given_back_and_nothing_else(holed: SqliteStore) -> None:
    before, texts = space_of(holed.path), holed.rows("SELECT id, text FROM documents")
    assert before.free > before.whole / 2
    assert vacuum(holed.path, lambda: None)
    after = space_of(holed.path)
    assert after.free == 0
    assert after.whole == holed.path.stat().st_size < before.whole / 2
    assert holed.rows("SELECT id, text FROM documents") == texts


_VACUUM = """
import sys
from pathlib import Path
from distllm.store import vacuum
vacuum.STEPS_BETWEEN = 1
left = int(sys.argv[2])
def working():
    global left
    left -= 1
    if not left:
        print("at work", flush=True)
        sys.stdin.readline()
vacuum.vacuum(Path(sys.argv[1]), working)
print("done")
"""


@pytest.mark.parametrize("steps", [1, 3000])
def test_killed_at_work_it_leaves_the_database_as_it_was(holed: SqliteStore, steps: int) -> None:
    before = holed.rows("SELECT id, text FROM documents")
    command = [sys.executable, "-c", _VACUUM, str(holed.path), str(steps)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert_consistent(holed)
    assert holed.rows("SELECT id, text FROM documents") == before
    assert vacuum(holed.path, lambda: None)
    assert space_of(holed.path).free == 0


def test_an_interrupt_reaches_the_caller_and_changes_nothing(
    holed: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuums, "STEPS_BETWEEN", 1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    before = space_of(holed.path)
    with pytest.raises(KeyboardInterrupt):
        vacuum(holed.path, interrupt)
    assert space_of(holed.path) == before


def test_a_disk_without_room_is_told_of_before_anything_is_done(
    holed: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DistllmError, match="make room"):
        vacuum(holed.path, lambda: None)


def test_a_program_that_writes_is_waited_for_only_so_long(holed: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacuums, "WAIT_SECONDS", 0)
    with closing(sqlite3.connect(holed.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="close it") as raised:
            vacuum(holed.path, lambda: None)
        assert raised.value.passing
        other.execute("ROLLBACK")
