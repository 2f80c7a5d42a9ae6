"""A migrated database for each test."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.postgres_server import PostgresServer
from tests.store.store_kit import PostgresStore, SqliteStore, Store, assert_consistent, open_sqlite


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A new database file, opened by nobody."""
    return Path(shutil.copy(template, tmp_path / "d.db"))


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[SqliteStore]:
    """A new database file, open; the test leaves it consistent."""
    with closing(open_sqlite(path)) as store:
        yield store
        assert_consistent(store)


@pytest.fixture(scope="session")
def emptied(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database that each test finds empty, and leaves to be emptied."""
    with postgres_server.database("template") as url:
        yield url


@pytest.fixture
def postgres_store(postgres_server: PostgresServer, emptied: str) -> Iterator[PostgresStore]:
    """An empty database on PostgreSQL, open; the test leaves it consistent."""
    with closing(PostgresStore(postgres_server, emptied)) as store:
        try:
            yield store
            assert_consistent(store)
        finally:
            store.empty()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    """A new database on each engine, open; the test leaves it consistent."""
    opened: Store = request.getfixturevalue(f"{request.param}_store")
    return opened


@pytest.fixture
def second_connection(store: Store) -> Iterator[Callable[[], Store]]:
    """A function that opens the database again, as another process would."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(store.again()))
