"""Which process of which machine somebody is, as far as other processes of the same machine can tell."""

import os
import socket
import subprocess
import uuid
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@cache
def this_machine() -> str:
    """Its name, its network address, what it calls the time since it was started, and whose processes are seen there.

    Where one of these is not known, the last two are missing.
    """
    name = f"{socket.gethostname().replace(' ', '-')} {uuid.getnode():012x}"
    try:
        if _BOOT.exists():
            return f"{name} {_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"
        said = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return name
    return f"{name} {said.stdout.strip()} all"


def is_gone(machine: str, pid: int) -> bool:
    """Whether a process certainly runs no more: of this machine, and ended, or from before that was started."""
    theirs, ours = machine.split(" "), this_machine().split(" ")
    if len(theirs) != len(ours) or len(ours) < 4 or theirs[:2] != ours[:2]:
        return False
    if theirs[2] != ours[2]:
        return True
    if theirs[3] != ours[3]:
        # Two containers of one machine do not see each other's.
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
