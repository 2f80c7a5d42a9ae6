"""Looking at processes from outside: from /proc where there is one, else from `ps`, which a bare Linux may lack."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc/self/stat")


class Running(NamedTuple):
    """One process; `state` is Z for one that has ended and is not reaped."""

    pid: int
    parent: int
    state: str
    command: str


def children_of(parent: int) -> list[int]:
    """The processes that one has started, those not reaped included."""
    return [each.pid for each in _all() if each.parent == parent]


def descendants_of(parent: int) -> set[int]:
    """The processes that one has started, and theirs."""
    found, new = set[int](), {parent}
    processes = list(_all())
    while new:
        new = {each.pid for each in processes if each.parent in new} - found
        found |= new
    return found


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    return any(each.pid == pid and each.state != "Z" for each in _all())


def command_of(pid: int) -> str:
    """How a process was started; nothing if it is gone."""
    return next((each.command for each in _all() if each.pid == pid), "")


def _all() -> Iterator[Running]:
    return _from_proc() if _PROC.exists() else _from_ps()


def _from_proc() -> Iterator[Running]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        yield Running(int(folder.name), int(parent), state, command)


def _from_ps() -> Iterator[Running]:
    with subprocess.Popen(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], stdout=subprocess.PIPE, text=True, errors="replace"
    ) as ps:
        assert ps.stdout is not None
        lines = ps.stdout.read().splitlines()
    for pid, parent, state, command in (line.split(None, 3) for line in lines if len(line.split(None, 3)) == 4):
        if int(pid) != ps.pid:
            yield Running(int(pid), int(parent), state[0], command)
