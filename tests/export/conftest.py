"""Databases with answers: a small one made by the real functions, and one of twenty thousand answers."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import cli
from tests.export.export_kit import fill
from tests.store.conftest import emptied, path, postgres_store, sqlite_store, store

__all__ = ["cli", "emptied", "path", "postgres_store", "sqlite_store", "store"]


@pytest.fixture(scope="session")
def twenty_thousand(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with four answers about each of five thousand papers, 500 characters long."""
    path = Path(shutil.copy(template, tmp_path_factory.mktemp("large") / "large.db"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        fill(connection, papers=5_000, questions=4, characters=500)
    return path


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
