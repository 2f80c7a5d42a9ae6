"""Time that goes wrong: a clock that is set, and a process that stands still for a while."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distllm.domain.clock import Clock
from tests.cli.conftest import Cli, on_both_engines
from tests.cli.test_kill import answered, assert_done_once
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import BREAKS_OFF, GOOD, HELD, Behaviour
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

DAY = 86_400.0
ROOT = Path(__file__).parents[2]


def moves(server: Callable[[], FakeServer], set_to: Callable[[float], None]) -> Callable[[Seen], None]:
    """Sets the clock a day forward at the third request and two days back at the sixth, while a prompt is due again."""

    def on_request(_: Seen) -> None:
        days = {3: 1, 6: -1}.get(len(server().requests))
        if days is not None:
            set_to(days * DAY)

    return on_request


async def test_a_clock_that_is_set_by_a_day_forward_and_back_delays_and_charges_nothing(bench: Bench) -> None:
    added = 0.0

    def set_to(seconds: float) -> None:
        nonlocal added
        added = seconds

    await store_job(bench.database, [paper(n) for n in range(8)], ["What?"])
    async with FakeServer(on_request=moves(lambda: server, set_to)) as server:
        server.behave(GOOD, BREAKS_OFF, GOOD, GOOD, BREAKS_OFF)
        began = time.monotonic()
        await bench.work(server, clock=Clock(now=lambda: time.time() + added))
        assert time.monotonic() - began < 15.0
        assert len(server.requests) == 10
    assert added == -DAY
    assert bench.rows("SELECT count(*), sum(failures), sum(losses) FROM prompts") == [(8, 2, 0)]
    assert bench.rows("SELECT max(seconds) < 10 FROM results") == [(1,)]
    bench.assert_consistent()


@on_both_engines
async def test_a_command_whose_clock_is_set_by_a_day_ends_as_soon_as_another(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shift = cli.write("shift", "0")

    def set_to(seconds: float) -> None:
        shift.write_text(str(seconds))

    cli.papers(8)
    async with FakeServer(on_request=moves(lambda: server, set_to)) as server:
        cli.use(server)
        server.behave(GOOD, BREAKS_OFF, GOOD, GOOD, BREAKS_OFF)
        program = [sys.executable, "-m", "tests.faults.shifted", str(shift)]
        done = await cli.run("submit", "papers", "--prompt", "What?", program=program, seconds=30)
        assert done.code == 0, done.err
        assert len(server.requests) == 10
    assert "8 of 8 prompts about 8 documents answered\n" in done.out
    assert " h " not in done.err
    [(first, last)] = cli.rows("SELECT min(started_at), max(started_at) FROM attempts")
    assert last - first > DAY
    assert_done_once(cli, 8, {})
    assert cli.rows("SELECT sum(failures), sum(losses) FROM prompts") == [(2, 0)]


async def test_a_coordinator_that_is_frozen_keeps_its_work_from_others_and_goes_on_with_it(cli: Cli) -> None:
    cli.papers(6)
    async with FakeServer(slots=2) as server:
        cli.use(server)
        server.behave(GOOD, GOOD, Behaviour(headers_after=3600.0), Behaviour(headers_after=3600.0))
        first = await cli.start("submit", "papers", "--prompt", "What is asked?")
        await server.until(lambda: len(server.requests) == 4, 30)
        await cli.until(lambda: len(answered(cli)) == 2)
        first.send_signal(signal.SIGSTOP)
        second = await cli.start("resume")
        assert second.stderr is not None
        async with asyncio.timeout(30):
            while f"process {first.pid}".encode() not in (line := await second.stderr.readline()):
                assert line
        # The server gives up on the requests, and nobody is there to hear of it.
        await server.stop()
        assert [seen.ended for seen in server.requests[2:]] == ["disconnected"] * 2
        await server.start()
        with pytest.raises(TimeoutError):
            await server.until(lambda: len(server.requests) > 4, seconds=1.0)
        before = answered(cli)
        first.send_signal(signal.SIGCONT)
        assert (await cli.finish(first)).code == 0
        assert (await cli.finish(second)).code == 0
        assert len(server.requests) == 8
    assert_done_once(cli, 6, before)
    # What the server let go of is remembered as a loss, and costs no retry.
    assert cli.rows("SELECT sum(failures), sum(losses), max(lease) FROM prompts") == [(0, 2, 2)]
    assert cli.rows("SELECT count(DISTINCT coordinator_id) FROM attempts") == [(1,)]


@on_both_engines
async def test_an_answer_that_came_while_the_coordinator_was_frozen_counts_however_late_it_is_read(cli: Cli) -> None:
    cli.papers(3, words=4)
    async with FakeServer() as server:
        cli.use(server, request_timeout=1, max_retries=0)
        server.behave(GOOD, HELD)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?")
        await server.until(lambda: len(server.requests) == 2, 30)
        process.send_signal(signal.SIGSTOP)
        server.release()
        await server.until(lambda: server.requests[1].ended == "answered")
        # Longer than the 3 s that it has to its first token.
        await asyncio.wait([asyncio.create_task(process.wait())], timeout=4.5)
        process.send_signal(signal.SIGCONT)
        done = await cli.finish(process)
        assert done.code == 0, done.err
        assert len(server.requests) == 3
    assert_done_once(cli, 3, {})
