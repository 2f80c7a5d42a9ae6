"""What the service of a database tells other processes of itself, in a file beside the database."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from distllm.domain.errors import DistllmError
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.store.locks import service_lock


@dataclass(frozen=True, slots=True)
class Served:
    """A service that lives: its process, where it listens, and the hours it keeps as they are written, if any."""

    pid: int
    url: str
    hours: str | None


@contextmanager
def alone(place: DatabasePlace) -> Iterator[None]:
    """Be the one service of a database; on a server there may be many. Raises DistllmError where there is one."""
    if isinstance(place, PostgresUrl):
        yield
        return
    lock = service_lock(place)
    if not lock.try_acquire():
        raise DistllmError(
            f"process {lock.holder()} serves {place} already: stop that one first, or name another database"
        )
    try:
        yield
    finally:
        lock.release()


@contextmanager
def announced(place: DatabasePlace, served: Served) -> Iterator[None]:
    """Tell meanwhile where a database is served by its one service; where there may be many, nobody is told."""
    if isinstance(place, PostgresUrl):
        yield
        return
    file = _file(place)
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(asdict(served)), encoding="utf-8")
    new.replace(file)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def served(place: DatabasePlace) -> Served | None:
    """The service of a database; None if there is none, or it has died, or it does not listen yet.

    Of a database on a server nobody tells where it is served: many may do it.
    """
    if isinstance(place, PostgresUrl):
        return None
    lock = service_lock(place)
    if not lock.is_held():
        return None
    try:
        told = json.loads(_file(place).read_text(encoding="utf-8"))
        found = Served(int(told["pid"]), str(told["url"]), told["hours"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # What a killed one has left is not the word of the one that lives.
    return found if found.pid == lock.holder() else None


def _file(path: Path) -> Path:
    return path.with_name(path.name + "-service.json")


def me(url: str, hours: str | None) -> Served:
    """This process as a service."""
    return Served(os.getpid(), url, hours)
