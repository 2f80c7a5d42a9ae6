"""A migrated database for each test."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.store_kit import Store, assert_consistent


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A new database, opened by nobody."""
    return Path(shutil.copy(template, tmp_path / "d.db"))


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A new database, open; the test leaves it consistent."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=OFF")
        yield Store(path, connection)
        assert_consistent(connection)


@pytest.fixture
def second_connection(path: Path) -> Iterator[Callable[[], Store]]:
    """A function that opens the database again, as another process would."""
    opened: list[sqlite3.Connection] = []

    def again() -> Store:
        connection = sqlite3.connect(path, isolation_level=None)
        opened.append(connection)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=OFF")
        return Store(path, connection)

    yield again
    for connection in opened:
        connection.close()
