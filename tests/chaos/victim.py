"""The launcher of a victim: `python -m tests.chaos.victim DISTLLM-ARGUMENTS`, with orders in the environment.

It changes the world under the command and nothing of the command: a connection to SQLite that dies or lies at a
commit edge and can be full, a clock that can be wrong, and a transport that dies as it sends what is poison.
"""

import json
import os
import signal
import sqlite3
import sys
import time
from asyncio import selector_events
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tests.chaos.edges import AFTER, BEFORE, BEGUN, TOLD, Edge, Hit, sort_of
from tests.chaos.switches import Switches

ORDERS = "CHAOS_ORDERS"
POISONED = "poisoned"
"""How the log calls a death by poison."""

_LARGEST_PAGE_COUNT = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Orders:
    """What a victim is to do to itself. It tells in `log` how it dies; `poison` is a mark in what it sends."""

    log: Path
    switches: Path
    edge: Edge | None = None
    poison: str | None = None

    def environment(self) -> dict[str, str]:
        """What `read` reads."""
        return {ORDERS: json.dumps(asdict(self), default=str)}

    @classmethod
    def read(cls) -> "Orders":
        """The orders of this process."""
        given = json.loads(os.environ[ORDERS])
        edge = given["edge"] and Edge(**given["edge"])
        return cls(Path(given["log"]), Path(given["switches"]), edge, given["poison"])


class Executioner:
    """Writes down how this process dies, and has it die: the line survives."""

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, hit: Hit) -> None:
        """Write down an edge."""
        os.write(self._log, hit.line().encode())

    def die(self, hit: Hit) -> NoReturn:
        """End at once, with nothing put in order."""
        self.note(hit)
        os.kill(os.getpid(), signal.SIGKILL)
        while True:
            signal.pause()


class Watched(sqlite3.Connection):
    """A connection that knows what its transaction is about."""

    executioner: Executioner
    switches: Switches
    edge: Edge | None
    counted = 0
    _sorts: set[str] = set()  # noqa: RUF012 - replaced, never changed
    _due = False
    _full = False

    def execute(self, statement: str, values: Any = (), /) -> sqlite3.Cursor:
        """Execute, and die or lie on the way if this is the edge."""
        if statement == "BEGIN IMMEDIATE":
            self._make_room_or_none()
            self._sorts, self._due = set(), False
        elif statement == "COMMIT" and self._due:
            return self._commit_at_the_edge()
        cursor = super().execute(statement, values)
        self._note(statement)
        return cursor

    def executemany(self, statement: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """As `execute`."""
        cursor = super().executemany(statement, rows)
        self._note(statement)
        return cursor

    def _note(self, statement: str) -> None:
        sort = sort_of(statement)
        if sort is None or sort in self._sorts or not self.in_transaction:
            return
        self._sorts = self._sorts | {sort}
        if self.edge is not None and sort == self.edge.sort:
            Watched.counted += 1
            self._due = Watched.counted == self.edge.nth
            if self._due and self.edge.side == BEGUN:
                self.executioner.die(self._hit())

    def _commit_at_the_edge(self) -> sqlite3.Cursor:
        assert self.edge is not None
        if self.edge.side == BEFORE:
            self.executioner.die(self._hit())
        cursor = super().execute("COMMIT")
        self._due = False
        if self.edge.side == AFTER:
            self.executioner.die(self._hit())
        if self.edge.side == TOLD:
            self.executioner.note(self._hit())
            raise sqlite3.OperationalError("database is locked")
        return cursor

    def _hit(self) -> Hit:
        assert self.edge is not None
        return Hit(self.edge.side, tuple(sorted(self._sorts)))

    def _make_room_or_none(self) -> None:
        if self.switches.full != self._full:
            self._full = self.switches.full
            pages = super().execute("PRAGMA page_count").fetchone()[0] if self._full else _LARGEST_PAGE_COUNT
            super().execute(f"PRAGMA max_page_count={pages}")


def main() -> None:
    """Prepare the world, then be `distllm`."""
    orders = Orders.read()
    executioner, switches = Executioner(orders.log), Switches(orders.switches)
    Watched.executioner, Watched.switches, Watched.edge = executioner, switches, orders.edge
    sqlite3.connect = partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment]
    real_time = time.time
    # Before distllm is imported, since its clock takes the function then.
    time.time = lambda: real_time() + switches.clock
    if orders.poison is not None:
        _die_of(orders.poison.encode(), executioner)
    from distllm.cli import main as distllm

    sys.argv[0] = "distllm"
    distllm()


def _die_of(mark: bytes, executioner: Executioner) -> None:
    """Die just after a request with `mark` in it was sent."""
    transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    write, writelines = transport.write, transport.writelines

    def mortal_write(self: Any, data: bytes) -> None:
        write(self, data)
        if mark in bytes(data):
            executioner.die(Hit(POISONED, ("poison",)))

    def mortal_writelines(self: Any, pieces: Iterable[bytes]) -> None:
        listed = list(pieces)
        writelines(self, listed)
        if mark in b"".join(listed):
            executioner.die(Hit(POISONED, ("poison",)))

    transport.write, transport.writelines = mortal_write, mortal_writelines


if __name__ == "__main__":
    main()
