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
    from sqlalchemy import Connection

BUSY_TIMEOUT_SECONDS = 60.0


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
        raise DistllmError(f"{path} cannot be read as a database: {error}; name another file with --db") from error
    revision = str(row[0])
    if revision not in revisions():
        raise DistllmError(
            f"{path} was written by a newer distllm (schema {revision}, this program knows {revisions()[-1]}); "
            "update distllm, or name another file with --db"
        )
    return revision


def upgrade(path: Path) -> None:
    """Create the file if it is missing, and apply what it lacks. Does nothing to one that is current."""
    if revision_of(path) == revisions()[-1]:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    # The change to WAL fails at once, whatever the busy timeout, if two processes make it together.
    with FileLock(path.with_name(path.name + "-writer")), connect(str(path)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
