"""What tests believe of processes is true, whichever way they look."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import processes


@pytest.fixture(params=["_from_proc", "_from_ps"])
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two ways to look, where this system has it."""
    if request.param == "_from_proc" and not processes._PROC.exists():
        pytest.skip("only Linux has /proc")
    if request.param == "_from_ps" and shutil.which("ps") is None:
        pytest.skip("a bare Linux has no ps, and needs none")
    monkeypatch.setattr(processes, "_all", getattr(processes, request.param))


@pytest.mark.usefixtures("seen")
def test_a_child_is_found_while_it_runs_and_told_from_one_that_is_not_reaped() -> None:
    started = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", started], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        assert child.pid in processes.children_of(os.getpid())
        assert child.pid in processes.descendants_of(os.getppid())
        assert processes.is_alive(child.pid)
        assert "sys.stdin.read()" in processes.command_of(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not processes.is_alive(child.pid)
        assert child.pid in processes.children_of(os.getpid())
    assert child.pid not in processes.children_of(os.getpid())
    assert processes.command_of(child.pid) == ""
