"""Submits that are killed, made twice at once, or overtaken by an edit of their files."""

import asyncio
import signal
import sqlite3
from contextlib import closing

import pytest

from distllm.store.migrate import upgrade
from tests.cli.conftest import Cli, on_both_engines
from tests.cli.test_kill import assert_done_once
from tests.fakes.server import FakeServer

QUESTIONS = 100
"""For each paper; with three steps of five hundred papers, 100,100 prompts are written."""


@pytest.mark.long
async def test_killed_while_100_000_prompts_are_written_the_same_submit_writes_the_rest(cli: Cli) -> None:
    cli.papers(1001, words=5)
    asked = [word for number in range(QUESTIONS) for word in ("--prompt", f"What is {number}?")]
    command = ["submit", "--detach", "papers", *asked]
    cli.write("workers.json", '{"workers": [{"id": "a", "type": "ollama", "model": "m"}]}')
    upgrade(cli.database)
    with closing(sqlite3.connect(cli.database)) as connection, connection:
        # The second step takes for ever, once it has written its prompts.
        connection.execute(
            "CREATE TRIGGER slow AFTER UPDATE OF built ON jobs WHEN new.built = 1000 BEGIN "
            "UPDATE jobs SET name = (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT max(x) FROM n); END"
        )
    process = await cli.start(*command)
    await cli.until(lambda: cli.rows("SELECT built FROM jobs") == [(500,)])
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert cli.rows("SELECT built, submitted_at FROM jobs") == [(500, None)]
    assert cli.rows("SELECT count(*) FROM prompts") == [(500 * QUESTIONS,)]
    with closing(sqlite3.connect(cli.database)) as connection, connection:
        connection.execute("DROP TRIGGER slow")
    done = await cli.run(*command)
    assert done.code == 0, done.err
    total = 1001 * QUESTIONS
    assert cli.rows("SELECT count(*), count(DISTINCT document_id * 1000 + template_id) FROM prompts") == [
        (total, total)
    ]
    assert cli.rows("SELECT job_id, total, pending, state FROM job_progress") == [(1, total, total, "pending")]
    assert cli.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.long
@on_both_engines
async def test_the_same_submit_made_by_four_processes_at_once_is_one_job(cli: Cli) -> None:
    cli.papers(4)
    async with FakeServer() as server:
        cli.use(server)
        command = ["submit", "papers", "--prompt", "What is asked?"]
        done = await asyncio.gather(*(cli.run(*command, "--detach") for _ in range(4)))
        assert [each.code for each in done] == [0] * 4, [each.err for each in done]
        assert (await cli.run("resume")).code == 0
        assert len(server.requests) == 4
    assert_done_once(cli, 4, {})


@on_both_engines
async def test_a_paper_that_is_edited_before_its_turn_is_asked_about_as_it_was_submitted(cli: Cli) -> None:
    cli.write("papers/dams.txt", "The dam was built in 1902.")
    cli.write("papers/mills.txt", "The mill was closed in 1931.")
    async with FakeServer() as server:
        cli.use(server)
        assert (await cli.run("submit", "--detach", "papers", "--prompt", "When?")).code == 0
        cli.write("papers/dams.txt", "The dam was built in 1905.")
        assert (await cli.run("resume")).code == 0
        assert sorted("1902" in seen.system for seen in server.requests) == [False, True]
        assert not any("1905" in seen.system for seen in server.requests)
        done = await cli.run("submit", "papers", "--prompt", "When?")
        assert done.code == 0, done.err
        assert "1 answer reused" in done.out
        assert [("1905" in seen.system) for seen in server.requests[2:]] == [True]
    assert cli.rows("SELECT count(*) FROM documents") == [(3,)]
    assert cli.rows("SELECT job_id, state, done FROM job_progress ORDER BY 1") == [
        (1, "completed", 2),
        (2, "completed", 2),
    ]
