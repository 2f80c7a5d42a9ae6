"""A mistake is answered with one line that says what is wrong and what to do, and the right exit code."""

import sqlite3
from contextlib import closing

import pytest

from tests.cli.conftest import Cli, Done
from tests.fakes.server import FakeServer


def one_line(done: Done) -> str:
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("distllm: ")
    assert "Traceback" not in done.err
    return lines[0]


async def test_no_such_path(cli: Cli) -> None:
    done = await cli.run("submit", "nowhere", "--preset", "research")
    assert done.code == 2
    assert "nowhere" in one_line(done)
    assert not cli.database.exists()


async def test_an_empty_folder(cli: Cli) -> None:
    (cli.folder / "empty").mkdir()
    done = await cli.run("submit", "empty", "--preset", "research")
    assert done.code == 1
    assert "empty" in one_line(done)


async def test_an_unknown_preset_suggests_the_near_one(cli: Cli) -> None:
    cli.papers(1)
    done = await cli.run("submit", "papers", "--preset", "reserch")
    assert done.code == 2
    assert "research" in one_line(done)


async def test_nothing_to_ask(cli: Cli) -> None:
    cli.papers(1)
    done = await cli.run("submit", "papers")
    assert done.code == 2
    assert "--preset" in one_line(done)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"workers": [}', ["workers.json", "line 1"]),
        ('{"wokers": []}', ["workers.json", "wokers"]),
        ('{"workers": [{"id": "a", "type": "openai", "port": 70000}]}', ["workers[0].port", "65535"]),
        ('{"workers": [{"id": "a", "type": "openia", "port": 1}]}', ["workers[0].type", "openai"]),
        ('{"workers": [{"id": "a", "type": "openai"}]}', ["workers[0].port", "missing"]),
        (
            '{"workers": [{"id": "a", "type": "openai", "port": 1}, {"id": "a", "type": "openai", "port": 2}]}',
            ["workers[1].id", "twice"],
        ),
        ('{"request_timeout": "soon"}', ["request_timeout"]),
        ("[]", ["workers.json"]),
    ],
)
async def test_a_bad_configuration_names_file_and_place(cli: Cli, text: str, words: list[str]) -> None:
    cli.papers(1)
    cli.write("workers.json", text)
    done = await cli.run("submit", "papers", "--preset", "research")
    assert done.code == 2
    line = one_line(done)
    assert all(word in line for word in words), line


async def test_several_models_and_none_chosen(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer(models=("one", "two")) as server:
        cli.use(server)
        text = (cli.folder / "workers.json").read_text().replace(', "model": "fake-model"', "")
        cli.write("workers.json", text)
        done = await cli.run("submit", "papers", "--preset", "research")
    assert done.code == 1
    assert "one, two" in one_line(done)
    assert "--model" in one_line(done)


@pytest.mark.parametrize("command", [["status"], ["status", "1"], ["results", "1"], ["query", "select 1"], ["resume"]])
async def test_commands_that_look_never_make_a_database(cli: Cli, command: list[str]) -> None:
    done = await cli.run(*command)
    assert done.code == 1
    assert "distllm submit" in one_line(done)
    assert not cli.database.exists()


async def test_a_job_or_a_document_that_is_not_there(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", "papers", "--prompt", "What?")
        for command in (
            ["status", "7"],
            ["resume", "7"],
            ["results", "7"],
            ["results", "1", "--document", "x"],
            ["results", "1", "--prompt", "x"],
        ):
            done = await cli.run(*command)
            assert done.code == 2, command
            assert one_line(done)


@pytest.mark.parametrize(
    "statement", ["delete from jobs", "pragma user_version = 9", "attach 'x.db' as x", "create table t (a)", "nonsense"]
)
async def test_a_query_only_reads(cli: Cli, statement: str) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", "papers", "--prompt", "What?")
    done = await cli.run("query", statement)
    assert done.code == 2
    assert one_line(done)
    assert cli.rows("SELECT count(*) FROM jobs") == [(1,)]
    assert not (cli.folder / "x.db").exists()


async def test_a_database_that_is_none(cli: Cli) -> None:
    cli.papers(1)
    cli.database.write_bytes(b"this is a letter to my aunt, and not a database" * 50)
    for command in (["submit", "papers", "--preset", "research"], ["status"], ["query", "select 1"]):
        done = await cli.run(*command)
        assert done.code == 1, command
        assert "distllm.db" in one_line(done)


async def test_a_database_of_another_program(cli: Cli) -> None:
    cli.papers(1)
    with closing(sqlite3.connect(cli.database)) as other, other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    for command in (["submit", "papers", "--preset", "research"], ["status"]):
        done = await cli.run(*command)
        assert done.code == 1, command
        assert "another program" in one_line(done)


async def test_a_database_from_a_newer_distllm(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", "papers", "--prompt", "What?")
        with closing(sqlite3.connect(cli.database)) as future, future:
            future.execute("UPDATE alembic_version SET version_num = '9999'")
        for command in (["submit", "papers", "--prompt", "What?"], ["status"], ["resume"]):
            done = await cli.run(*command)
            assert done.code == 1, command
            assert "newer distllm" in one_line(done)
