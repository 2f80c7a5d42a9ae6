"""Faults that are injected for real: into the system calls, the clock and the network of a running command."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import DISTLLM, cli
from tests.dispatcher.conftest import bench, postgres_bench, sqlite_bench
from tests.required import require
from tests.store.conftest import emptied, path, postgres_store, sqlite_store
from tests.store.test_silent_server import cable

__all__ = [
    "bench",
    "cable",
    "cli",
    "emptied",
    "path",
    "postgres_bench",
    "postgres_store",
    "sqlite_bench",
    "sqlite_store",
]


def succeeds(*command: str | Path) -> bool:
    """Whether a command is there and ends well."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def inject() -> Callable[[str], list[str | Path]]:
    """What to start distllm with, so that one of its system calls fails: `inject("fdatasync:error=EIO:when=3")`.

    Calls are counted for each thread by itself, and all writes of a command are made by one thread.
    """
    require(succeeds("strace", "-o", "/dev/null", "true"), "strace is not installed, or may not trace")

    def program(fault: str) -> list[str | Path]:
        call = fault.partition(":")[0]
        # The tracer is a grandchild, so that the process that was started is distllm itself. With the filter, which
        # makes tracing quick, strace counts errors right and signals not.
        quick = [] if "signal=" in fault else ["--seccomp-bpf"]
        strace = ["strace", "-D", "-f", *quick, "-o", "/dev/null", f"--trace={call}", f"--inject={fault}"]
        return [*strace, DISTLLM]

    return program


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    require(succeeds("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place), "only Linux's root mounts a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
