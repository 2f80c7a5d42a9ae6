"""Pausing, cancelling and retrying from a second terminal, while the first one works."""

import asyncio
import time

from tests.cli.conftest import Cli
from tests.fakes.behaviour import EMPTY, HANGS, HELD
from tests.fakes.server import FakeServer

SOON = 2.0
"""Seconds within which a command of another process must take effect, from when it has said so."""


async def test_a_cancelled_job_is_stopped_at_the_server_within_two_seconds(cli: Cli) -> None:
    async with FakeServer(slots=2) as server:
        cli.use(server)
        server.behave_always(HANGS)
        working = await cli.start("submit", str(cli.papers(4)), "--prompt", "What?")
        await server.until(lambda: len(server.requests) == 2, seconds=20)
        done = await cli.run("cancel", "1")
        said = time.monotonic()
        assert (done.code, done.out) == (0, "Job 1 is cancelled: 0 answers kept, 4 not asked\n")
        await server.until(lambda: all(seen.ended == "disconnected" for seen in server.requests), seconds=SOON)
        assert time.monotonic() - said < SOON
        assert len(server.requests) == 2
        ended = await cli.finish(working)
    assert ended.code == 3
    assert "Job 1, prompts on papers: cancelled" in ended.out
    assert "\n  4 prompts cancelled and not asked\n" in ended.out
    assert "failures" not in ended.out
    assert cli.rows("SELECT DISTINCT state FROM prompts") == [("cancelled",)]
    done = await cli.run("resume", "1")
    assert done.out == "These jobs have ended: see `distllm status`.\n"
    done = await cli.run("retry", "1")
    assert (done.code, "submit it again" in done.err) == (1, True)


async def test_a_paused_job_is_left_alone_until_it_is_named_again(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        server.behave(HELD)
        working = await cli.start("submit", str(cli.papers(1)), "--prompt", "What?", "--prompt", "How?")
        await server.until(lambda: len(server.requests) == 1, seconds=20)
        done = await cli.run("pause", "1")
        assert "Job 1 is paused; what is in flight ends" in done.out
        # What was leased ahead has been given back, so the pause was noticed.
        await cli.until(lambda: cli.rows("SELECT count(*) FROM prompts WHERE state = 'leased'") == [(1,)], SOON)
        server.release()
        ended = await cli.finish(working)
        assert ended.code == 130
        assert "Go on with: distllm resume 1" in ended.err
        assert len(server.requests) == 1
        assert cli.rows("SELECT state, done FROM job_progress") == [("paused", 1)]

        done = await cli.run("resume")
        assert done.out == "Nothing is unfinished but job 1, which is paused; go on with: distllm resume 1\n"
        assert len(server.requests) == 1
        assert (await cli.run("pause", "1")).out == "Job 1 is paused already. Go on with: distllm resume 1\n"
        assert (await cli.run("resume", "1")).code == 0
    assert cli.rows("SELECT state, done FROM job_progress") == [("completed", 2)]
    done = await cli.run("pause", "1")
    assert (done.code, done.err) == (1, "distllm: job 1 has ended: it is completed\n")


async def test_a_retry_is_taken_up_by_the_process_that_works_within_two_seconds(cli: Cli) -> None:
    async with FakeServer(slots=2) as server:
        cli.use(server, max_retries=0)
        server.behave(EMPTY)
        assert (await cli.run("submit", str(cli.papers(1)), "--prompt", "What?")).code == 3
        server.behave(HELD)
        cli.write("other/x.txt", "another paper")
        working = await cli.start("submit", str(cli.folder / "other"), "--prompt", "Why?")
        await server.until(lambda: len(server.requests) == 2, seconds=20)
        done = await cli.run("retry", "1")
        assert f"process {working.pid} works on it" in done.out
        await server.until(lambda: len(server.requests) == 3, seconds=SOON)
        server.release()
        assert (await cli.finish(working)).code == 0
        assert [seen.question for seen in server.requests] == ["What?", "Why?", "What?"]
    assert cli.rows("SELECT state FROM job_progress") == [("completed",), ("completed",)]
    assert (await cli.run("retry", "1")).out == "Job 1 has no failed prompts.\n"


async def test_a_job_that_goes_on_is_taken_up_by_the_process_that_works_within_two_seconds(cli: Cli) -> None:
    async with FakeServer(slots=2) as server:
        cli.use(server)
        assert (await cli.run("submit", "--detach", str(cli.papers(1)), "--prompt", "What?")).code == 0
        assert (await cli.run("pause", "1")).code == 0
        server.behave(HELD)
        cli.write("other/x.txt", "another paper")
        working = await cli.start("submit", str(cli.folder / "other"), "--prompt", "Why?")
        await server.until(lambda: len(server.requests) == 1, seconds=20)
        following = await cli.start("resume", "1")
        assert following.stderr is not None
        async with asyncio.timeout(20):
            while f"process {working.pid}".encode() not in (line := await following.stderr.readline()):
                assert line
        await server.until(lambda: len(server.requests) == 2, seconds=SOON)
        server.release()
        assert (await cli.finish(working)).code == (await cli.finish(following)).code == 0
        assert [seen.question for seen in server.requests] == ["Why?", "What?"]
    assert cli.rows("SELECT state FROM job_progress") == [("completed",), ("completed",)]


async def test_a_job_that_is_not_there(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", str(cli.papers(1)), "--prompt", "What?")
    for command in ("pause", "cancel", "retry"):
        done = await cli.run(command, "7")
        assert (done.code, done.err) == (2, "distllm: there is no job 7: `distllm status` lists them\n")
