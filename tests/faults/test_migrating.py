"""An upgrade of an older database that is killed midway: the old schema or the new one, and nothing between."""

import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config

from distllm.store.migrate import connect, migrations_folder, revision_of, revisions
from tests.cli.conftest import Cli

OLDEST, NEWEST = revisions()[0], revisions()[-1]


def migrated(path: Path, revision: str) -> Path:
    """A database as the distllm left it that knew this revision as its newest."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with connect(str(path)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return path


def schema_of(path: Path) -> set[tuple[str, str]]:
    """The statements that made what is in a database."""
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master"))


async def test_killed_midway_an_upgrade_leaves_a_whole_schema_and_the_next_command_upgrades(
    cli: Cli, tmp_path: Path, inject: Callable[[str], list[str | Path]]
) -> None:
    whole = {revision: schema_of(migrated(tmp_path / f"{revision}.db", revision)) for revision in revisions()}
    assert whole[OLDEST] != whole[NEWEST]
    old = migrated(tmp_path / "old.db", OLDEST)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.executemany(
            "INSERT INTO documents (sha256, characters, text, created_at) VALUES (?, 5, 'a dam', 1.0)",
            [(f"{number:064}",) for number in range(100)],
        )
    # While the second step waits for the disk, and in the middle of what the first writes.
    for fault in ("fdatasync:signal=SIGKILL:when=4", "pwrite64:signal=SIGKILL:when=34"):
        for file in tmp_path.glob("distllm.db*"):
            file.unlink()
        shutil.copy(old, cli.database)
        killed = await cli.run("db", "upgrade", program=inject(fault))
        assert killed.code == -signal.SIGKILL, killed.err
        left = revision_of(cli.database)
        assert left is not None
        assert schema_of(cli.database) == whole[left]
    assert left == OLDEST
    done = await cli.run("resume")
    assert (done.code, done.out) == (0, "Nothing is unfinished.\n"), done.err
    assert revision_of(cli.database) == NEWEST
    assert schema_of(cli.database) == whole[NEWEST]
    assert cli.rows("SELECT count(*) FROM documents WHERE text = 'a dam'") == [(100,)]
