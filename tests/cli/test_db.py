"""Care of the database, as a person does it."""

import json
import sqlite3
from contextlib import closing

import pytest
from alembic import command
from alembic.config import Config

from distllm.store.locks import coordinator_lock
from distllm.store.migrate import connect, migrations_folder, revisions
from tests.cli.conftest import Cli
from tests.cli.here import Here, one_line, serving
from tests.fakes.behaviour import HELD
from tests.fakes.server import FakeServer


@pytest.fixture
def answered(here: Here) -> Here:
    """A database with three answers."""
    here.files.papers(3)
    with serving(server := FakeServer()):
        here.files.use(server)
        done = here.run("submit", "papers", "--prompt", "What?")
    assert done.code == 0, done.err
    return here


def test_the_path_is_absolute_also_before_there_is_a_database(here: Here) -> None:
    before = here.run("--db", "new.db", "db", "path")
    assert (before.code, before.out) == (0, f"{here.folder / 'new.db'}\n")
    assert "does not exist yet" in before.err
    (here.folder / "new.db").touch()
    after = here.run("--db", "new.db", "db", "path")
    assert (after.code, after.out, after.err) == (0, before.out, "")


def test_bare_db_shows_its_help(here: Here) -> None:
    done = here.run("db")
    assert done.code == 0
    assert all(word in done.out for word in ("path", "upgrade", "check", "backup", "Example:"))


def test_an_upgrade_says_what_it_did(here: Here) -> None:
    here.files.database.touch()
    newest = revisions()[-1]
    assert here.run("db", "upgrade").out == f"distllm.db was made with schema {newest}.\n"
    assert here.run("db", "upgrade").out == f"distllm.db has the newest schema ({newest}) already.\n"


def test_a_database_of_an_earlier_distllm_is_brought_up(here: Here) -> None:
    first, newest = revisions()[0], revisions()[-1]
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with connect("distllm.db") as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, first)
    found = here.run("db", "check")
    assert found.code == 1
    assert f"fault schema      {first}, and this program's is {newest}; run: distllm db upgrade" in found.out
    with coordinator_lock(here.files.database):
        assert "stop it" in one_line(here.run("db", "upgrade"))
    assert here.run("db", "upgrade").out == f"distllm.db was brought from schema {first} to {newest}.\n"
    assert here.run("db", "check").code == 0


@pytest.mark.parametrize("arguments", [["upgrade"], ["check"], ["check", "--repair"], ["backup", "copy.db"]])
def test_nothing_makes_a_database_that_is_not_there(here: Here, arguments: list[str]) -> None:
    done = here.run("db", *arguments)
    assert done.code == 1
    assert "there is no database distllm.db yet" in one_line(done)
    assert sorted(entry.name for entry in here.folder.iterdir()) == ["home"]


def test_a_check_of_a_sound_database(answered: Here) -> None:
    done = answered.run("db", "check")
    assert done.code == 0, done.out
    assert {line.split()[0] for line in done.out.splitlines()} <= {"ok", "note"}
    assert "counters    agree" in done.out
    facts = json.loads(answered.run("db", "check", "--json").out)
    assert facts["ok"] is True
    assert facts["repaired"] is None
    assert {"ok"} < {finding["level"] for finding in facts["findings"]} <= {"ok", "note"}


def test_a_fault_is_found_repaired_and_gone(answered: Here) -> None:
    with closing(sqlite3.connect("distllm.db")) as connection, connection:
        connection.execute("UPDATE job_counters SET done = 1, pending = 2")
    found = answered.run("db", "check")
    assert found.code == 1
    assert "fault counters    of job 1: pending 2, in truth 0, done 1, in truth 3; run: distllm db" in found.out
    mended = answered.run("db", "check", "--repair")
    assert mended.code == 0, mended.out
    assert "repaired: 0 leases given back, 1 counter counted anew" in mended.out
    assert answered.run("db", "check").code == 0
    assert "nothing was to be repaired" in answered.run("db", "check", "--repair").out


def test_a_backup_is_told_and_can_be_asked(answered: Here) -> None:
    done = answered.run("db", "backup", "copy.db")
    assert done.code == 0, done.err
    assert done.out.startswith("copy.db is a whole copy of distllm.db")
    asked = answered.run("--db", "copy.db", "query", "select count(*) as n from answers", "--json")
    assert json.loads(asked.out) == [{"n": 3}]
    again = answered.run("db", "backup", "distllm.db")
    assert again.code == 2
    assert "the database itself" in one_line(again)


async def test_beside_a_coordinator_a_check_looks_a_repair_refuses_and_a_copy_is_whole(cli: Cli) -> None:
    cli.papers(3)
    async with FakeServer() as server:
        cli.use(server)
        server.behave_always(HELD)
        process = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 1, 30)
        refused = await cli.run("db", "check", "--repair")
        assert refused.code == 1
        assert f"process {process.pid} works distllm.db" in one_line(refused)
        looked = await cli.run("db", "check")
        assert looked.code == 0, looked.out
        assert f"process {process.pid} works this database and holds" in looked.out
        copied = await cli.run("db", "backup", "copy.db")
        assert copied.code == 0, copied.err
        server.release()
        assert (await cli.finish(process)).code == 0
        # The copy is a database like any other: what was in flight is asked again there.
        asked = len(server.requests)
        resumed = await cli.run("--db", "copy.db", "resume")
        assert resumed.code == 0, resumed.err
        assert len(server.requests) > asked
    assert (await cli.run("--db", "copy.db", "db", "check")).code == 0
