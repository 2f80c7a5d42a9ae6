"""A database that is missing, another's, too new, damaged, shut, held or on a full disk: one line each."""

import asyncio
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import DISTLLM, Cli
from tests.cli.here import Here, one_line, serving
from tests.fakes.server import FakeServer
from tests.faults.conftest import succeeds
from tests.required import require

LOOKING = [["status"], ["status", "1"], ["status", "--watch"], ["results", "1"], ["query", "select 1"]]
USING = [["submit", "papers", "--prompt", "What?"], ["resume"], ["cancel", "1"], ["db", "check"], *LOOKING]


@pytest.fixture
def answered(here: Here) -> Here:
    """A database with a job that is done, and one that is only stored."""
    here.files.papers(2)
    with serving(server := FakeServer()):
        here.files.use(server)
        assert here.run("submit", "papers", "--prompt", "What?").code == 0
        assert here.run("submit", "--detach", "papers", "--prompt", "Why?").code == 0
    return here


def assert_each_is_one_line(here: Here, commands: list[list[str]], words: str) -> None:
    for command in commands:
        done = here.run(*command)
        assert done.code == 1, command
        assert words in one_line(done), command


def test_looking_never_makes_a_database(here: Here) -> None:
    assert_each_is_one_line(here, [*LOOKING, ["resume"], ["cancel", "1"]], "distllm submit")
    assert not here.files.database.exists()


def test_a_job_or_a_document_that_is_not_there(answered: Here) -> None:
    for command in (
        ["status", "7"],
        ["status", "7", "--watch"],
        ["resume", "7"],
        ["results", "7"],
        ["results", "1", "--document", "x"],
        ["results", "1", "--prompt", "x"],
    ):
        done = answered.run(*command)
        assert done.code == 2, command
        assert one_line(done)


@pytest.mark.parametrize(
    "statement", ["delete from jobs", "pragma user_version = 9", "attach 'x.db' as x", "create table t (a)", "nonsense"]
)
def test_a_query_only_reads(answered: Here, statement: str) -> None:
    done = answered.run("query", statement)
    assert done.code == 2
    assert one_line(done)
    assert answered.files.rows("SELECT count(*) FROM jobs") == [(2,)]
    assert not (answered.folder / "x.db").exists()


def test_a_file_that_is_no_database(here: Here) -> None:
    here.files.papers(1)
    here.files.database.write_bytes(b"this is a letter to my aunt, and not a database" * 50)
    assert_each_is_one_line(
        here, USING, "distllm.db cannot be read as a database: file is not a database; name another"
    )


def test_a_folder_instead_of_a_database(here: Here) -> None:
    here.files.papers(1)
    here.files.database.mkdir()
    assert_each_is_one_line(here, USING, "distllm.db is a folder: name a database file")


def test_a_database_of_another_program(here: Here) -> None:
    here.files.papers(1)
    with closing(sqlite3.connect(here.files.database)) as other, other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    assert_each_is_one_line(here, USING, "another program")


def test_a_database_from_a_newer_distllm(answered: Here) -> None:
    with closing(sqlite3.connect(answered.files.database)) as future, future:
        future.execute("UPDATE alembic_version SET version_num = '9999'")
    assert_each_is_one_line(answered, [*USING, ["db", "upgrade"], ["db", "backup", "c.db"]], "newer distllm")


def test_a_damaged_database(answered: Here) -> None:
    with closing(sqlite3.connect(answered.files.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = answered.files.database.read_bytes()
    answered.files.database.write_bytes(whole[:20_000])
    assert_each_is_one_line(answered, USING, "malformed; restore a copy made by `distllm db backup`")


def test_a_database_that_may_only_be_read(answered: Here) -> None:
    answered.files.database.chmod(0o444)
    for command in (["submit", "papers", "--prompt", "How?"], ["cancel", "2"], ["resume"]):
        done = answered.run_without_privileges(*command)
        assert done.code == 1, command
        assert "could not be written" in done.err.splitlines()[-1]
        assert "give yourself the right to write it" in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
    assert answered.run_without_privileges("status").code == 0


def test_a_database_that_may_not_be_read(answered: Here) -> None:
    answered.files.database.chmod(0)
    for command in (["status"], ["submit", "papers", "--prompt", "How?"], ["db", "check"]):
        done = answered.run_without_privileges(*command)
        assert done.code == 1, command
        assert "give yourself the right to read it" in one_line(done)


def test_a_folder_that_cannot_be_written(answered: Here) -> None:
    for beside in answered.folder.glob("distllm.db-*"):
        beside.unlink()
    answered.folder.chmod(0o555)
    try:
        for command in (
            ["status"],
            ["submit", "papers", "--prompt", "How?"],
            ["--db", "n.db", "submit", "papers", "--prompt", "?"],
        ):
            done = answered.run_without_privileges(*command)
            assert done.code == 1, command
            assert "give yourself the right" in one_line(done)
    finally:
        answered.folder.chmod(0o755)


@contextmanager
def held(database: Path) -> Iterator[None]:
    """Another program holds the right to write."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.communicate()


def test_looking_needs_no_turn_while_another_program_writes(answered: Here) -> None:
    with held(answered.files.database):
        for command in (["status"], ["status", "1"], ["results", "1"], ["query", "select 1"], ["db", "check"]):
            assert answered.run(*command).code == 0, command
        copied = answered.run("db", "backup", "copy.db")
        assert copied.code == 0, copied.err
    assert answered.run("--db", "copy.db", "status", "2").code == 0


async def test_writing_waits_for_another_program_and_then_goes_on(cli: Cli) -> None:
    cli.papers(1)
    cli.write("workers.json", '{"workers": [{"id": "a", "type": "ollama", "model": "m"}]}')
    assert (await cli.run("submit", "--detach", "papers", "--prompt", "What?")).code == 0
    with held(cli.database):
        process = await cli.start("submit", "--detach", "papers", "--prompt", "Why?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await process.wait()
    done = await cli.finish(process)
    assert done.code == 0, done.err
    assert cli.rows("SELECT count(*) FROM jobs") == [(2,)]


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_database_that_is_held_for_long_is_given_up_with_one_line(answered: Here) -> None:
    with held(answered.files.database):
        done = answered.run("cancel", "2")
    assert done.code == 1
    assert "another program has held it for 6" in one_line(done)
    assert answered.run("cancel", "2").code == 0


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of two megabytes, which is full but for what a database begins with."""
    place = tmp_path / "small"
    place.mkdir()
    require(succeeds("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place), "only Linux's root mounts a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_one_line_and_nothing_is_lost(here: Here, full: Path) -> None:
    here.files.papers(8, words=25_000)
    here.files.write("workers.json", '{"workers": [{"id": "a", "type": "ollama", "model": "m"}]}')
    stored = here.run("--db", str(full / "d.db"), "submit", "--detach", "papers/paper0.txt", "--prompt", "What?")
    assert stored.code == 0, stored.err
    done = here.run("--db", str(full / "d.db"), "submit", "--detach", "papers", "--prompt", "What?")
    assert done.code == 1
    assert "could not be written: database or disk is full; make room" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert here.run("--db", str(full / "d.db"), "status").code == 0
    copied = here.run("--db", str(full / "d.db"), "db", "backup", str(full / "copy.db"))
    assert copied.code == 1
    assert "could not be made" in one_line(copied)
    assert sorted(entry.name for entry in full.iterdir() if "copy" in entry.name) == []


def test_a_file_that_may_not_grow_is_one_line(here: Here) -> None:
    here.files.papers(3, words=30_000)
    here.files.write("workers.json", '{"workers": [{"id": "a", "type": "ollama", "model": "m"}]}')
    assert here.run("submit", "--detach", "papers/paper0.txt", "--prompt", "What?").code == 0
    # Blocks of 512 bytes: room for one of these papers, and not for three.
    command = f"ulimit -f 1000; exec {shlex.quote(str(DISTLLM))} submit --detach papers --prompt Why?"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "could not be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert here.run("db", "check").code == 0


async def test_ctrl_c_while_another_program_holds_the_database_ends_the_command(cli: Cli) -> None:
    cli.papers(1)
    cli.write("workers.json", '{"workers": [{"id": "a", "type": "ollama", "model": "m"}]}')
    assert (await cli.run("submit", "--detach", "papers", "--prompt", "What?")).code == 0
    with held(cli.database):
        process = await cli.start("status", "1", "--watch")
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"job 1, ")
        process.send_signal(signal.SIGINT)
        done = await cli.finish(process, seconds=10)
    assert done.code == 130
    assert done.err == ""
