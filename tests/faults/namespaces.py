"""Two machines of a test's own, with one cable between them that can be pulled. Linux, and root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Machines:
    """Network namespaces: `here`, where distllm runs, and `there`, which has `address` on the cable."""

    here: str
    there: str
    address: str = "10.99.0.2"

    def pull(self) -> None:
        """Pull the cable: nobody is told, and nothing answers."""
        _ip("-n", self.there, "link", "set", "cable", "down")

    def plug(self) -> None:
        """Put the cable back."""
        _ip("-n", self.there, "link", "set", "cable", "up")


def inside(machine: str) -> list[str]:
    """What runs a command on a machine, and becomes it."""
    return ["ip", "netns", "exec", machine]


@contextmanager
def machines() -> Iterator[Machines]:
    """Two machines, gone again at the end. Raises CalledProcessError where they cannot be made."""
    made = Machines(f"here{os.getpid()}", f"there{os.getpid()}")
    try:
        for name in (made.here, made.there):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", made.here, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", made.there)
        _ip("-n", made.here, "address", "add", "10.99.0.1/24", "dev", "cable")
        _ip("-n", made.there, "address", "add", f"{made.address}/24", "dev", "cable")
        for name in (made.here, made.there):
            _ip("-n", name, "link", "set", "cable", "up")
        yield made
    finally:
        for name in (made.here, made.there):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
