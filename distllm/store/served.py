"""What the service of a database tells other processes of itself, in a file beside the database."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from distllm.store.locks import service_lock


@dataclass(frozen=True, slots=True)
class Served:
    """A service that lives: its process, where it listens, and the hours it keeps as they are written, if any."""

    pid: int
    url: str
    hours: str | None


def announce(path: Path, served: Served) -> None:
    """Tell where the database at `path` is served; its caller holds the service's lock."""
    file = _file(path)
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(asdict(served)), encoding="utf-8")
    new.replace(file)


def withdraw(path: Path) -> None:
    """The database at `path` is no longer served."""
    with suppress(OSError):
        _file(path).unlink()


def served(path: Path) -> Served | None:
    """The service of the database at `path`; None if there is none, or it has died, or it does not listen yet."""
    lock = service_lock(path)
    if not lock.is_held():
        return None
    try:
        told = json.loads(_file(path).read_text(encoding="utf-8"))
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
