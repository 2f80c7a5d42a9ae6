"""What several suites share is rewritten for pytest here, before any of them imports it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from distllm.domain.places import PostgresUrl
from distllm.store.migrate import upgrade
from tests.documents.real_papers import Shelf
from tests.postgres_server import OLDEST, PostgresServer, programs, running
from tests.required import require

# How long an example takes says how busy the machine is.
settings.register_profile("distllm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("distllm")

pytest.register_assert_rewrite("tests.store.store_kit", "tests.export.export_kit", "tests.workers.worker_kit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no core waits at the end for another."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture(scope="session")
def shelf(request: pytest.FixtureRequest) -> Shelf:
    """The packages in pytest's cache."""
    assert request.config.cache is not None
    return Shelf(Path(request.config.cache.mkdir("real-papers")))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database, migrated once for all tests, to be copied."""
    path = tmp_path_factory.mktemp("template") / "new.db"
    upgrade(path)
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process; its database `template` is migrated, to be copied."""
    require(programs(), f"PostgreSQL {OLDEST} or newer is not installed")
    with running() as server:
        from distllm.store.postgres.schema import upgrade_server

        server.execute("CREATE DATABASE template")
        server.wait_for(upgrade_server(PostgresUrl(server.url("template"))))
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A new database on PostgreSQL, migrated."""
    with postgres_server.database("template") as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A new database on PostgreSQL, with nothing in it."""
    with postgres_server.database() as url:
        yield url
