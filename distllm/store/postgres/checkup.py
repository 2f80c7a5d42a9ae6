"""A look at the health of a database on PostgreSQL, but not at what the server itself sees to, such as references."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from distllm.domain.places import PostgresUrl
from distllm.domain.text import size_in_words
from distllm.store.findings import Ask, Finding, Level, content, leases, read_views, schema
from distllm.store.postgres.connection import AWAY, connect, set_up, unreachable
from distllm.store.postgres.schema import server_revision
from distllm.store.postgres.words import in_its_words
from distllm.store.repair import LIVE
from distllm.store.tx import Row

_VIEWS = "SELECT table_name FROM information_schema.views WHERE table_schema = current_schema() ORDER BY table_name"
_SERVER = "SELECT current_setting('server_version'), pg_database_size(current_database())"


def check_server(url: PostgresUrl) -> Iterator[Finding]:
    """Look at everything, the quickest first. Raises DistllmError if it is no database of distllm's."""
    revision = asyncio.run(server_revision(url))
    with _asking(url) as ask:
        [(version, size)] = ask(_SERVER)
        yield Finding(Level.FINE, "PostgreSQL", version)
        yield Finding(Level.FINE, "size", size_in_words(size))
        finding = schema(revision)
        yield finding
        if finding.level is Level.FAULT:
            return
        yield read_views(ask, _VIEWS)
        yield leases(ask, lambda: [pid for (pid,) in ask(LIVE.text)])
        ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield from content(ask)


def working(url: PostgresUrl) -> list[int]:
    """The processes that work a database of whatever schema, on whatever machine; none where it is empty."""
    with _asking(url) as ask:
        there_is = ask("SELECT to_regclass('coordinators') IS NOT NULL")
        return [pid for (pid,) in ask(LIVE.text)] if there_is == [(True,)] else []


@contextmanager
def _asking(url: PostgresUrl) -> Iterator[Ask]:
    """A connection for code that waits for each answer."""
    with asyncio.Runner() as runner:
        # Counting the rows of a large database takes long.
        connection = runner.run(connect(url, command_timeout=None))
        runner.run(set_up(connection))

        def ask(statement: str) -> list[Row]:
            try:
                return [tuple(row) for row in runner.run(connection.fetch(in_its_words(statement)))]
            except (*AWAY, asyncpg.PostgresError) as error:
                raise unreachable(url, error) from error

        try:
            yield ask
        finally:
            connection.terminate()
