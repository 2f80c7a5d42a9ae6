"""Bring a database file to the newest schema, each migration in one explicit transaction.

The migrations lie beside the package in a clone and inside it in an installed wheel.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distllm.domain.errors import DistllmError
from distllm.store.locks import FileLock

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

BUSY_TIMEOUT_SECONDS = 60.0
DAMAGED = "restore a copy made by `distllm db backup`, or save what can be read with SQLite's own `.recover`"


def migrations_folder() -> Path:
    """The folder that holds `env.py` and `versions/`."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def revisions() -> list[str]:
    """All revisions this program knows, oldest first; their files begin with four digits."""
    found = migrations_folder().joinpath("versions").glob("[0-9]*_*.py")
    return sorted(path.name.split("_", 1)[0] for path in found)


def revision_of(path: Path) -> str | None:
    """The revision that a database file is at; None if it is empty or does not exist.

    Raises DistllmError for a file that is not distllm's, or is newer than this program.
    """
    if path.is_dir():
        raise DistllmError(f"{path} is a folder: name a database file with --db")
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if not tables:
                return None
            if "alembic_version" not in tables or "readings" not in tables:
                raise DistllmError(f"{path} is a database of another program; name another file with --db")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise DistllmError(f"{path} cannot be read as a database: {error}; {_remedy(error)}") from error
    revision = str(row[0])
    if revision not in revisions():
        raise DistllmError(newer(str(path), revision))
    return revision


def newer(place: str, revision: str) -> str:
    """What is said of a database whose revision is unknown."""
    return (
        f"{place} was written by a newer distllm (schema {revision}, this program knows {revisions()[-1]}); "
        "update distllm, or name another database with --db"
    )


def _remedy(error: sqlite3.DatabaseError) -> str:
    said = str(error)
    if "malformed" in said or "I/O" in said:
        return DAMAGED
    if "locked" in said:
        return "another program holds it: close that, then try again"
    if "readonly" in said or "unable to open" in said:
        return "give yourself the right to read it, and to write its folder, where SQLite keeps what it needs to read"
    return "name another file with --db"


def upgrade(path: Path) -> None:
    """Create the file if it is missing, and apply what it lacks. Does nothing to one that is current."""
    if revision_of(path) == revisions()[-1]:
        return
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    config = alembic_config()
    try:
        # The change to WAL fails at once, whatever the busy timeout, if two processes make it together.
        with FileLock(path.with_name(path.name + "-writer")), connect(str(path)) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise DistllmError(_not_upgraded(path, error.orig or error)) from error
    except (sqlite3.Error, OSError) as error:
        raise DistllmError(_not_upgraded(path, error)) from error


def alembic_config() -> "Config":
    """What alembic needs to find the migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def _not_upgraded(path: Path, error: BaseException) -> str:
    said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if "full" in said or "No space" in said:
        remedy = "make room"
    elif "locked" in said:
        remedy = "another program holds it: close that, then try again"
    else:
        remedy = f"give yourself the right to write it and its folder ({path.absolute().parent})"
    return f"the database {path} could not be made or brought to the newest schema: {said.lower()}; {remedy}"


@contextmanager
def connect(path: str) -> Iterator["Connection"]:
    """A SQLAlchemy connection whose transactions begin IMMEDIATE, so that DDL is whole or not at all."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    def open_file() -> sqlite3.Connection:
        raw = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA synchronous=FULL")
        return raw

    engine = create_engine("sqlite://", creator=open_file, poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()
