"""The CPU time of processes, as Linux tells it; in seconds, to a hundredth."""

import os
from pathlib import Path

_SYSTEM = Path("/proc")
_PARENT, _USER, _KERNEL, _USER_OF_ENDED, _KERNEL_OF_ENDED = 1, 11, 12, 13, 14


def cpu_of(pid: int) -> float:
    """What all threads of a process have used so far."""
    told = _told(pid)
    return (int(told[_USER]) + int(told[_KERNEL])) / os.sysconf("SC_CLK_TCK")


def cpu_of_family(pid: int) -> float:
    """What a process and its children have used so far, those that have ended too."""
    told = _told(pid)
    ticks = sum(int(told[place]) for place in (_USER, _KERNEL, _USER_OF_ENDED, _KERNEL_OF_ENDED))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(_cpu_if_alive(child) for child in _children_of(pid))


def idle_seconds() -> float:
    """How long the cores of the machine have had nothing to do so far, in sum."""
    [every] = [line for line in (_SYSTEM / "stat").read_text().splitlines() if line.startswith("cpu ")]
    _, _, _, _, idle, waiting, *_ = every.split()
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def parent_of(pid: int) -> int:
    """The process that started it."""
    return int(_told(pid)[_PARENT])


def name_of(pid: int) -> str | None:
    """The program of a process; None where there is none on this machine."""
    try:
        return (_SYSTEM / str(pid) / "comm").read_text().strip()
    except OSError:
        return None


def _children_of(pid: int) -> list[int]:
    tasks = (_SYSTEM / str(pid) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _cpu_if_alive(pid: int) -> float:
    try:
        return cpu_of(pid)
    except OSError:
        return 0.0


def _told(pid: int) -> list[str]:
    """What /proc tells of a process, from its state on."""
    return (_SYSTEM / str(pid) / "stat").read_text().rpartition(")")[2].split()
