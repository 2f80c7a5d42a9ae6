"""Watching jobs, on a terminal and in a pipe."""

import asyncio
import json
import signal
import sqlite3
import time
from contextlib import closing

import pytest
from rich.cells import cell_len

from distllm.store.migrate import upgrade
from tests.cli.conftest import Cli
from tests.cli.terminal import LEAVE, on_terminal, plain
from tests.fakes.behaviour import HELD
from tests.fakes.server import FakeServer
from tests.store.store_kit import NOW, SqliteStore, add_job, end

LONG_NAME = "all papers on the shelf of the reading room upstairs, 日本語の論文, once more"


def many_jobs(cli: Cli, count: int) -> None:
    """Jobs in all states, with long names, and a worker whose name is long."""
    upgrade(cli.database)
    with closing(sqlite3.connect(cli.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        store = SqliteStore(cli.database, connection)
        me, worker = store.coordinator(), store.worker("studio-in-the-cellar-behind-the-heating")
        for number in range(count):
            job = add_job(store, [f"text {number}"])
            store.rows("UPDATE jobs SET name = ? WHERE id = ?", f"{LONG_NAME} {number}", job)
            if number < 3:
                group = store.must_take(me, worker)
                store.settle(end(store.send(me, worker, group.leases[0])))
            elif number == 3:
                store.rows("UPDATE jobs SET paused_at = ? WHERE id = ?", NOW, job)


@pytest.mark.parametrize(("lines", "columns", "shown"), [(24, 80, 18), (12, 60, 6)])
async def test_two_hundred_jobs_fit_any_terminal_and_ctrl_c_is_quiet(
    cli: Cli, lines: int, columns: int, shown: int
) -> None:
    many_jobs(cli, 200)
    async with on_terminal(cli, "status", "--watch", lines=lines, columns=columns) as terminal:
        await terminal.until("more: distllm status")
        terminal.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            assert await terminal.process.wait() == 130
        await terminal.until(LEAVE)
    frame = terminal.frames[-1]
    assert len(frame) <= lines
    assert {cell_len(line) for line in frame} <= {columns}
    assert frame[0].startswith("200 jobs: 1 paused, 196 pending, 3 completed; no")
    rows = [line.split("│")[1:3] for line in frame if line.startswith("│")]
    assert len(rows) == shown
    assert [int(row[0]) for row in rows[:3]] == [4, 200, 199]
    assert rows[0][1].strip().startswith("all papers on the")
    assert f"and {200 - shown} more" in frame[shown + 5]
    # Nothing is left on the terminal that is seen afterwards.
    assert plain(terminal.text.partition(LEAVE)[2]).strip() == ""


async def test_a_job_is_watched_until_it_has_ended_and_stays_to_be_read(cli: Cli) -> None:
    cli.papers(3)
    async with FakeServer() as server:
        cli.use(server)
        server.behave_always(HELD)
        process = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 1, 30)
        async with on_terminal(cli, "status", "1", "--watch", columns=60) as terminal:
            began = time.monotonic()
            await terminal.until("0 of 3 (")
            server.release()
            async with asyncio.timeout(30):
                assert await terminal.process.wait() == 0
            took = time.monotonic() - began
            await terminal.until("completed", 5)
        assert (await cli.finish(process)).code == 0
    assert len(terminal.frames) <= 2 * took + 4
    shapes = [(len(frame), {cell_len(line) for line in frame}) for frame in terminal.frames]
    assert shapes == [(24, {60})] * len(shapes)
    assert f"process {process.pid}" in plain(terminal.text)
    left = plain(terminal.text.partition(LEAVE)[2])
    assert "Job 1, prompts on papers: completed" in left
    assert "3 of 3" in left


async def test_in_a_pipe_it_tells_lines_and_ends_with_the_job(cli: Cli) -> None:
    cli.papers(2)
    async with FakeServer() as server:
        cli.use(server)
        server.behave_always(HELD)
        process = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 1, 30)
        watching = await cli.start("status", "1", "--watch")
        objects = await cli.start("status", "1", "--watch", "--json")
        assert watching.stdout is not None
        first = await watching.stdout.readline()
        assert first.decode() == "job 1, prompts on papers: running, 0 of 2 answered\n"
        server.release()
        done, told = await cli.finish(watching), await cli.finish(objects)
        await cli.finish(process)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "job 1, prompts on papers: completed, 2 of 2 answered"
    assert "\x1b" not in done.out
    assert json.loads(told.out.splitlines()[-1])["state"] == "completed"


async def test_a_watch_of_no_jobs_waits_for_one(cli: Cli) -> None:
    upgrade(cli.database)
    async with on_terminal(cli, "status", "--watch") as terminal:
        await terminal.until("0 jobs; no coordinator is live")
        many_jobs(cli, 1)
        await terminal.until("1 job: 1 completed")


async def test_a_job_that_is_not_there_cannot_be_watched(cli: Cli) -> None:
    upgrade(cli.database)
    done = await cli.run("status", "7", "--watch")
    assert done.code == 2
    assert done.err == "distllm: there is no job 7: `distllm status` lists them\n"
