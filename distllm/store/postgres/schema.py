"""Bring a PostgreSQL database to the newest schema, all migrations in one transaction."""

import asyncpg

from distllm.domain.errors import DistllmError
from distllm.domain.places import PostgresUrl
from distllm.store.migrate import alembic_config, newer, revisions
from distllm.store.postgres.connection import session, unreachable

OLDEST_VERSION = 15

COPYING = "copying"
"""What the name of the schema begins with as long as a copy into it is not whole."""

_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
_ALEMBIC = "SELECT to_regclass('alembic_version') IS NOT NULL AND to_regclass('readings') IS NOT NULL"


async def server_revision(url: PostgresUrl) -> str | None:
    """The revision that a database is at; None if it is empty.

    Raises DistllmError for one that is not distllm's, or is newer than this program.
    """
    async with session(url) as connection:
        return await _revision(connection, url)


async def found_revision(connection: "asyncpg.Connection") -> str | None:
    """What a database says that its schema is; None if it has none."""
    if not await connection.fetchval(_ALEMBIC):
        return None
    return str(await connection.fetchval("SELECT version_num FROM alembic_version"))


async def _revision(connection: "asyncpg.Connection", url: PostgresUrl) -> str | None:
    if connection.get_server_version().major < OLDEST_VERSION:
        raise DistllmError(
            f"{url} is PostgreSQL {connection.get_server_version().major}: distllm needs {OLDEST_VERSION} or newer"
        )
    revision = await found_revision(connection)
    if revision is None:
        if await connection.fetchval(_TABLES):
            raise DistllmError(f"{url} holds tables of another program: make a database for distllm with createdb")
        return None
    if revision.startswith(COPYING):
        raise DistllmError(
            f"{url} is not whole: a copy into it goes on or was broken off; `distllm --db FILE db copy` goes on with it"
        )
    if revision not in revisions():
        raise DistllmError(newer(str(url), revision))
    return revision


async def must_be_made(url: PostgresUrl) -> None:
    """Bring a database to the newest schema; DistllmError for one that is empty."""
    revision = await server_revision(url)
    if revision is None:
        raise DistllmError(f"the database {url} is empty: `distllm submit` makes what it needs there")
    if revision != revisions()[-1]:
        await upgrade_server(url)


async def upgrade_server(url: PostgresUrl) -> None:
    """Make the tables if there are none, and apply what they lack. Does nothing to a database that is current."""
    async with session(url) as connection:
        if await _revision(connection, url) == revisions()[-1]:
            return
        # Whoever comes second waits here, and then finds nothing to do.
        await connection.execute("SELECT pg_advisory_lock(hashtext('distllm'), hashtext('schema'))")
        if await _revision(connection, url) != revisions()[-1]:
            await _migrate(url)


async def _migrate(url: PostgresUrl) -> None:
    from alembic import command
    from sqlalchemy import Connection, NullPool
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine

    async def open_connection() -> "asyncpg.Connection":
        return await asyncpg.connect(url.secret)

    def migrate(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine("postgresql+asyncpg://", async_creator=open_connection, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    except DBAPIError as error:
        # What the server said is the cause of what SQLAlchemy makes of it.
        said = error.orig.__cause__ if error.orig else None
        raise unreachable(url, said if isinstance(said, Exception) else error) from error
    finally:
        await engine.dispose()
