"""Told to stop from a terminal or by a service: once in order, twice at once, and another goes on."""

import asyncio
import signal

import pytest

from tests.cli.conftest import Cli, on_both_engines
from tests.fakes.behaviour import HANGS, HELD
from tests.fakes.server import FakeServer


@on_both_engines
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_once_it_finishes_what_is_in_flight_and_says_how_to_go_on(cli: Cli, number: signal.Signals) -> None:
    cli.papers(6)
    async with FakeServer(slots=2, seconds_per_token=0.1) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 3, 30)
        process.send_signal(number)
        done = await cli.finish(process)
        assert done.code == 130, done.err
        assert done.err.strip().splitlines()[-1].endswith("distllm resume")
        assert all(seen.ended == "answered" for seen in server.requests)
        assert 3 <= len(server.requests) < 6
        assert cli.rows("SELECT count(*) FROM results") == [(len(server.requests),)]
        server.seconds_per_token = 0.0
        assert (await cli.run("resume")).code == 0
        assert len(server.requests) == 6
    assert cli.rows("SELECT sum(failures), sum(losses) FROM prompts") == [(0, 0)]


@on_both_engines
async def test_twice_it_goes_at_once_and_loses_nothing(cli: Cli) -> None:
    cli.papers(3)
    async with FakeServer() as server:
        server.behave(HANGS)
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) == 1, 30)
        process.send_signal(signal.SIGINT)
        await asyncio.wait([ending := asyncio.create_task(process.wait())], timeout=0.5)
        assert not ending.done()
        process.send_signal(signal.SIGINT)
        done = await cli.finish(process, seconds=10)
        assert done.code == 130, done.err
        assert done.err.strip().splitlines()[-1].endswith("distllm resume")
        await server.until(lambda: server.requests[0].ended == "disconnected")
        assert (await cli.run("resume")).code == 0
        assert len(server.requests) == 4
    assert cli.rows("SELECT DISTINCT state, failures, losses FROM prompts") == [("done", 0, 0)]
    assert cli.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [("done", 3), ("released", 1)]


async def test_a_second_submit_takes_over_when_the_first_is_told_to_stop(cli: Cli) -> None:
    cli.papers(4)
    async with FakeServer(seconds_per_token=0.1) as server:
        cli.use(server)
        server.behave(HELD)
        first = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 1, 30)
        second = await cli.start("submit", "papers", "--prompt", "What is weak?")
        assert second.stderr is not None
        async with asyncio.timeout(30):
            while f"process {first.pid}".encode() not in (line := await second.stderr.readline()):
                assert line
        first.send_signal(signal.SIGTERM)
        server.release()
        assert (await cli.finish(first)).code == 130
        done = await cli.finish(second)
        assert done.code == 0, done.err
    # A coordinator works all jobs until those that it was started for are done.
    assert cli.rows("SELECT state FROM job_progress WHERE job_id = 2") == [("completed",)]
    assert cli.rows("SELECT count(*) FROM attempts WHERE outcome <> 'done'") == [(0,)]
    assert (await cli.run("resume")).code == 0
    assert cli.rows("SELECT DISTINCT state FROM job_progress") == [("completed",)]
