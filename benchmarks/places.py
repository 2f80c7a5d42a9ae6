"""Where the databases of a benchmark are: files of a folder, or databases of a PostgreSQL server."""

import argparse
import asyncio
import os
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.cpu import cpu_of_family, name_of, parent_of
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.places import DatabasePlace, PostgresUrl, place_of

SQLITE, POSTGRES = "sqlite", "postgres"


class Databases(ABC):
    """Makes databases, and copies of them."""

    said: str
    """The engine and its version."""

    @abstractmethod
    def new(self, name: str) -> DatabasePlace:
        """A place for a new database."""

    @abstractmethod
    def copy(self, place: DatabasePlace, name: str) -> DatabasePlace:
        """A database that nobody uses, anew under another name, with all of it on the disk."""

    @abstractmethod
    def drop(self, place: DatabasePlace) -> None:
        """Remove a database, if it is there."""

    @abstractmethod
    def size(self, place: DatabasePlace) -> int:
        """The bytes of a database that nobody uses."""

    @abstractmethod
    def cpu_seconds(self) -> float:
        """What a server of its own has used so far, without that of its clients."""


@dataclass(frozen=True, slots=True)
class Files(Databases):
    """Databases of SQLite, each in a folder of its own."""

    folder: Path
    said = f"SQLite {sqlite3.sqlite_version}"

    def new(self, name: str) -> Path:
        """A place for a new file."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder / "distllm.db"

    def copy(self, place: DatabasePlace, name: str) -> Path:
        """The file, once more."""
        assert isinstance(place, Path)
        copy = self.new(name)
        shutil.copy(place, copy)
        # What is still to be written would slow down the commits of whoever comes next.
        os.sync()
        return copy

    def drop(self, place: DatabasePlace) -> None:
        """Remove the file with its folder."""
        assert isinstance(place, Path)
        shutil.rmtree(place.parent, ignore_errors=True)

    def size(self, place: DatabasePlace) -> int:
        """The bytes of the file."""
        assert isinstance(place, Path)
        return place.stat().st_size

    def cpu_seconds(self) -> float:
        """There is no server."""
        return 0.0


@dataclass(frozen=True, slots=True)
class OnServer(Databases):
    """Databases beside the one at `url`, whose names begin with its name."""

    url: PostgresUrl
    said: str

    def new(self, name: str) -> PostgresUrl:
        """A new database, without any table."""
        place = self._beside(name)
        self.drop(place)
        self._ask(f'CREATE DATABASE "{place.database}"')
        return place

    def copy(self, place: DatabasePlace, name: str) -> PostgresUrl:
        """A database, once more; copied as files, and so between two checkpoints."""
        assert isinstance(place, PostgresUrl)
        copy = self._beside(name)
        self.drop(copy)
        self._ask(f'CREATE DATABASE "{copy.database}" TEMPLATE "{place.database}" STRATEGY file_copy')
        return copy

    def drop(self, place: DatabasePlace) -> None:
        """Drop a database, whoever still uses it."""
        assert isinstance(place, PostgresUrl)
        self._ask(f'DROP DATABASE IF EXISTS "{place.database}" WITH (FORCE)')

    def size(self, place: DatabasePlace) -> int:
        """The bytes of its files."""
        assert isinstance(place, PostgresUrl)
        return int(self._ask("SELECT pg_database_size($1::text)", place.database))

    def cpu_seconds(self) -> float:
        """What all its processes have used; exits where they are not on this machine."""
        return asyncio.run(_cpu_seconds(self.url))

    def _beside(self, name: str) -> PostgresUrl:
        there = f"{self.url.database}_{name.replace('-', '_')}"
        return PostgresUrl(urlsplit(self.url.secret)._replace(path=f"/{there}").geturl())

    def _ask(self, statement: str, *values: Any) -> Any:
        return asyncio.run(_value(self.url, statement, *values))


async def _value(url: PostgresUrl, statement: str, *values: Any) -> Any:
    from distllm.store.postgres.connection import connect

    connection = await connect(url)
    try:
        return await connection.fetchval(statement, *values, timeout=600)
    finally:
        await connection.close()


async def _cpu_seconds(url: PostgresUrl) -> float:
    from distllm.store.postgres.connection import connect

    connection = await connect(url)
    try:
        backend = connection.get_server_pid()
        if name_of(backend) != "postgres":
            raise SystemExit(f"the CPU time of {url} can be told on its own machine only, and on Linux")
        return cpu_of_family(parent_of(backend))
    finally:
        await connection.close()


def as_option(place: DatabasePlace) -> str:
    """What `distllm --db` is given."""
    return place.secret if isinstance(place, PostgresUrl) else str(place)


def add_db(parser: argparse.ArgumentParser, default: str = SQLITE) -> None:
    """The option `--db`, which says where the databases are."""
    parser.add_argument(
        "--db",
        default=default,
        type=_where,
        metavar="WHERE",
        help="sqlite; postgres, a server started for this; or the postgresql://… of an empty database, beside which "
        f"others are made and dropped ({default})",
    )


def _where(text: str) -> str:
    if text not in (SQLITE, POSTGRES):
        try:
            if isinstance(place_of(text), Path):
                raise argparse.ArgumentTypeError(f"neither {SQLITE} nor {POSTGRES} nor a postgresql://… URL")
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return text


@contextmanager
def open_databases(where: str, folder: Path) -> Iterator[Databases]:
    """Databases as `--db` says; those of SQLite are in `folder`. Exits where the named database is not empty."""
    if where == SQLITE:
        yield Files(folder)
    elif where == POSTGRES:
        from tests.postgres_server import running

        with running("--durable") as server:
            yield _on_server(PostgresUrl(server.url("postgres")))
    else:
        place = place_of(where)
        assert isinstance(place, PostgresUrl)
        yield _on_server(place)


def _on_server(url: PostgresUrl) -> OnServer:
    from distllm.store.postgres.schema import server_revision

    try:
        if asyncio.run(server_revision(url)) is not None:
            raise DistllmError(f"the database {url} is not empty: make one for benchmarks with createdb")
        return OnServer(url, f"PostgreSQL {asyncio.run(_value(url, 'SHOW server_version')).split()[0]}")
    except DistllmError as error:
        raise SystemExit(str(error)) from error
