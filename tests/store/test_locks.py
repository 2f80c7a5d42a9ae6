"""Locks beside the database: they end with their process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from distllm.store.locks import FileLock, coordinator_lock, coordinator_pid

_HOLDER = """
import sys
from pathlib import Path
from distllm.store.locks import coordinator_lock
lock = coordinator_lock(Path(sys.argv[1]))
print(lock.try_acquire(), flush=True)
sys.stdin.readline()
"""


def test_a_lock_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    first, second = (FileLock(tmp_path / "lock") for _ in range(2))
    assert first.try_acquire()
    assert not second.try_acquire()
    assert second.is_held()
    first.release()
    assert not second.is_held()
    assert second.try_acquire()
    second.release()


def test_a_lock_can_be_given_up_twice_and_taken_again(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with lock:
        assert lock.holder() == os.getpid()
    lock.release()
    with lock:
        assert lock.is_held()


def test_a_lock_that_nobody_ever_took_is_free_and_makes_no_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert not lock.is_held()
    assert lock.holder() is None
    assert not (tmp_path / "lock").exists()
    assert coordinator_pid(tmp_path / "d.db") is None


def test_a_lock_file_with_nonsense_in_it_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("not a number")
    assert FileLock(tmp_path / "lock").holder() is None


def test_looking_at_a_lock_does_not_keep_others_from_looking(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with lock:
        pass
    assert [FileLock(tmp_path / "lock").is_held() for _ in range(3)] == [False] * 3


def test_a_lock_is_free_the_moment_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        lock = coordinator_lock(path)
        assert coordinator_pid(path) == process.pid
        assert not lock.try_acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.try_acquire()
        assert coordinator_pid(path) == os.getpid()
        lock.release()
