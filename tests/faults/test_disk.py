"""A disk that fails, fills up, or stops a command in the middle of a commit."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from distllm.store.database import open_database
from tests.cli.conftest import Cli
from tests.cli.test_kill import answered, assert_done_once
from tests.dispatcher.conftest import paper, store_job
from tests.fakes.server import FakeServer

Inject = Callable[[str], list[str | Path]]


async def stored(cli: Cli, server: FakeServer, papers: int) -> None:
    """A job that waits to be worked, in a database of its own."""
    cli.use(server)
    async with open_database(cli.database) as database:
        await store_job(database, [paper(number) for number in range(papers)], ["What is asked?"])


@pytest.mark.parametrize(
    "when", [pytest.param("8", id="once"), pytest.param("8+", id="from then on", marks=pytest.mark.long)]
)
async def test_a_sync_that_fails_stops_the_run_in_one_line_and_loses_nothing(
    cli: Cli, inject: Inject, when: str
) -> None:
    async with FakeServer(seconds_per_token=0.01) as server:
        await stored(cli, server, 20)
        done = await cli.run("resume", program=inject(f"fdatasync:error=EIO:when={when}"))
        assert done.code == 1, done.err
        last = done.err.strip().splitlines()[-1]
        assert last.startswith("distllm: the database ")
        assert "could not be written: disk I/O error" in last
        assert "resume" in last
        assert "Traceback" not in done.err
        before, asked = answered(cli), len(server.requests)
        assert 0 < len(before) < 20
        # What was in flight or not yet written is asked again, and no more.
        assert asked <= len(before) + 2
        done = await cli.run("resume")
        assert done.code == 0, done.err
        assert len(server.requests) <= asked + 20 - len(before)
    assert_done_once(cli, 20, before)
    assert cli.rows("SELECT sum(failures) FROM prompts") == [(0,)]


async def test_killed_inside_commit_after_commit_it_goes_on_and_each_prompt_has_one_result(
    cli: Cli, inject: Inject
) -> None:
    async with FakeServer(seconds_per_token=0.01) as server:
        await stored(cli, server, 20)
        for commit in (2, 7):
            before = answered(cli)
            killed = await cli.run("resume", program=inject(f"fdatasync:signal=SIGKILL:when={commit}"))
            assert killed.code == -signal.SIGKILL, killed.err
            kept = answered(cli)
            assert {key: kept[key] for key in before} == before
        assert 0 < len(kept) < 20
        done = await cli.run("resume")
        assert done.code == 0, done.err
        # Each kill can have cost what was in flight or answered and not yet written, and no more.
        assert 20 <= len(server.requests) <= 20 + 2 * 2
    assert_done_once(cli, 20, kept)
    assert cli.rows("SELECT sum(failures) FROM prompts") == [(0,)]


@pytest.mark.long
async def test_no_space_for_a_while_pauses_the_run_which_goes_on_by_itself(cli: Cli, inject: Inject) -> None:
    async with FakeServer(seconds_per_token=0.01) as server:
        await stored(cli, server, 10)
        done = await cli.run("resume", program=inject("pwrite64:error=ENOSPC:when=60..61"))
        assert done.code == 0, done.err
        assert len(server.requests) == 10
    [line] = [line for line in done.err.splitlines() if "disk is full" in line]
    assert line.endswith("make room (waiting; nothing is lost)")
    assert_done_once(cli, 10, {})


async def test_a_full_disk_is_waited_for_until_there_is_room(cli: Cli, small_disk: Path) -> None:
    answer, database = " ".join(f"word{n}" for n in range(3000)), small_disk / "d.db"
    async with FakeServer(answer=lambda _: answer, context=100_000) as server:
        cli.use(server)
        async with open_database(database) as opened:
            await store_job(opened, [paper(number) for number in range(12)], ["What is asked?"], max_tokens=4000)
        filler = small_disk / "somebody else's"
        room = os.statvfs(small_disk)
        filler.write_bytes(bytes(room.f_bavail * room.f_frsize - 200_000))
        process = await cli.start("--db", str(database), "resume")
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"disk is full" not in (line := await process.stderr.readline()):
                assert line
        assert b"waiting; nothing is lost" in line
        held = len(server.requests)
        assert held < 12
        # Nothing more is asked than what was leased, and its answers wait.
        with pytest.raises(TimeoutError):
            await server.until(lambda: len(server.requests) > held + 3, seconds=1.0)
        filler.unlink()
        done = await cli.finish(process)
        assert done.code == 0, done.err
        assert len(server.requests) == 12
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT count(*), min(length(answer)), max(attempts) FROM answers").fetchall()
    assert found == [(12, len(answer), 1)]
    assert (await cli.run("--db", str(database), "db", "check")).code == 0
