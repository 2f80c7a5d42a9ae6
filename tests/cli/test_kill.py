"""Killed at any moment: no child is left, the lock is free, and the work goes on where it was."""

import asyncio
import signal
from asyncio.subprocess import Process
from pathlib import Path
from random import Random

import pytest

from distllm.store.locks import coordinator_lock
from tests.cli.conftest import Cli, on_both_engines
from tests.fakes.behaviour import HELD
from tests.fakes.server import FakeServer
from tests.processes import command_of, descendants_of, is_alive
from tests.store.store_kit import assert_agrees


async def kill(cli: Cli, process: Process) -> None:
    """SIGKILL a command: within a second its children are gone and its locks are free."""
    children = descendants_of(process.pid)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await cli.until(lambda: not any(is_alive(child) for child in children), seconds=1.0)
    if cli.store is None:
        await cli.until(lambda: not coordinator_lock(cli.database).is_held(), seconds=1.0)


def answered(cli: Cli) -> dict[int, tuple[object, ...]]:
    """The results there are, by prompt: attempt, answer, when, and how often it was asked."""
    rows = cli.rows(
        "SELECT prompt_id, attempt_id, answer, finished_at,"
        " (SELECT count(*) FROM attempts a WHERE a.prompt_id = r.prompt_id) FROM results r"
    )
    return {row[0]: row[1:] for row in rows}


def assert_done_once(cli: Cli, prompts: int, before: dict[int, tuple[object, ...]]) -> None:
    """Each prompt has one result, and none that had one was asked again."""
    after = answered(cli)
    assert len(after) == prompts
    assert {key: after[key] for key in before} == before
    assert cli.rows("SELECT count(*) FROM prompts WHERE state <> 'done'") == [(0,)]
    assert cli.rows("SELECT state FROM job_progress") == [("completed",)]
    assert cli.rows("SELECT sum(done), sum(pending + leased + failed) FROM job_counters") == [(prompts, 0)]
    assert_agrees(cli.rows)


@pytest.mark.parametrize("cli", ["sqlite", "postgres"], indirect=True)
async def test_killed_midway_again_and_again(cli: Cli) -> None:
    cli.papers(10)
    async with FakeServer(slots=2, seconds_per_token=0.02) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?", "--prompt", "What is found?")
        for goal in (4, 9, 14):
            await cli.until(lambda goal=goal: len(answered(cli)) >= goal)
            before = answered(cli)
            await kill(cli, process)
            # What was sent before has arrived, and what was stored is read.
            await asyncio.sleep(0.2)
            asked, before = len(server.requests), answered(cli)
            process = await cli.start("resume")
        done = await cli.finish(process)
        assert done.code == 0, done.err
        # Each kill can have cost the requests that were in flight, and what a server of its own was still storing.
        assert 20 <= len(server.requests) <= 20 + 3 * (2 if cli.store is None else 4)
        assert len(server.requests) - asked == 20 - len(before), "what was stored is not asked again"
    assert_done_once(cli, 20, before)


@on_both_engines
async def test_killed_while_it_reads_files(cli: Cli) -> None:
    cli.papers(300, words=3000)

    def read() -> int:
        return cli.rows("SELECT count(*) FROM job_documents WHERE document_id IS NOT NULL")[0][0] if linked() else 0

    def linked() -> bool:
        return bool(cli.rows("SELECT 1 FROM job_documents"))

    async with FakeServer(slots=8, context=100_000) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?")
        await cli.until(lambda: read() >= 20)
        await kill(cli, process)
        kept = read()
        assert 20 <= kept < 300
        assert cli.rows("SELECT submitted_at FROM jobs") == [(None,)]
        assert "being built" in (await cli.run("status")).out
        done = await cli.run("resume")
        assert done.code == 0, done.err
        assert len(server.requests) == 300
    assert cli.rows("SELECT count(*) FROM documents") == [(300,)]
    assert_done_once(cli, 300, {})


@on_both_engines
async def test_the_same_submit_after_a_kill_goes_on_with_the_same_job(cli: Cli) -> None:
    cli.papers(300, words=3000)
    async with FakeServer(slots=8, context=100_000) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?")
        await cli.until(lambda: cli.rows("SELECT 1 FROM job_documents WHERE document_id IS NOT NULL"))
        await kill(cli, process)
        done = await cli.run("submit", "papers", "--prompt", "What is asked?")
        assert done.code == 0, done.err
        assert len(server.requests) == 300
    assert_done_once(cli, 300, {})


async def test_a_follower_takes_over_when_the_coordinator_is_killed(cli: Cli) -> None:
    cli.papers(6)
    async with FakeServer(seconds_per_token=0.3) as server:
        cli.use(server)
        first = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 2, 20)
        second = await cli.start("resume")
        assert second.stderr is not None
        assert f"process {first.pid}".encode() in await second.stderr.readline()
        before = answered(cli)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        server.seconds_per_token = 0.0
        assert (await cli.finish(second)).code == 0
    assert_done_once(cli, 6, before)


@on_both_engines
async def test_killed_with_a_prompt_in_flight_on_two_workers_at_once(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as slow, FakeServer() as idle:
        slow.behave(HELD)
        idle.behave(HELD)
        idle.probe_status = 503
        cli.use(slow, idle, health_check_interval=0.2)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?")
        await slow.until(lambda: len(slow.requests) == 1, 20)
        # The one falls silent, the other comes up.
        slow.probe_status, idle.probe_status = 503, 200
        await cli.until(lambda: cli.rows("SELECT lease, outcome FROM attempts") == [(1, None), (1, None)], 20)
        await kill(cli, process)
        slow.probe_status = 200
        done = await cli.run("resume")
        assert done.code == 0, done.err
        assert len(slow.requests) + len(idle.requests) == 3
    assert cli.rows("SELECT lease, outcome FROM attempts ORDER BY id") == [(1, "lost"), (1, "lost"), (2, "done")]
    assert cli.rows("SELECT lease, failures, losses FROM prompts") == [(2, 0, 1)]
    assert_done_once(cli, 1, {})


async def test_killed_with_the_embedded_worker_alive(cli: Cli) -> None:
    text = Path(__file__).parents[2].joinpath("jobs/quickstart/papers/spaced-quizzes-in-evening-courses.txt")
    for number in range(2):
        cli.write(f"papers/paper{number}.txt", f"Paper {number}\n\n{text.read_text()[:600]}")
    questions = ["What was studied?", "What was found?", "What is weak?"]
    prompts = [word for question in questions for word in ("--prompt", question)]
    process = await cli.start("submit", "papers", *prompts, "--max-tokens", "12")
    await cli.until(lambda: answered(cli))
    before = answered(cli)
    assert any("embedded_child" in command_of(child) for child in descendants_of(process.pid))
    await kill(cli, process)
    done = await cli.run("resume")
    assert done.code == 0, done.err
    assert_done_once(cli, 6, before)
    assert cli.rows("SELECT DISTINCT model FROM answers") == [("SmolLM2-135M-Instruct.Q4_1",)]


@pytest.mark.long
@pytest.mark.timeout(900)
@on_both_engines
async def test_killed_at_forty_random_moments(cli: Cli) -> None:
    rng, kills, seats = Random(7), 40, 4
    cli.papers(100)
    async with FakeServer(slots=seats, seconds_per_token=0.3) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?", "--prompt", "What is found?")
        await cli.until(lambda: cli.rows("SELECT 1 FROM jobs"))
        before: dict[int, tuple[object, ...]] = {}
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0.5, 4.0))
            await kill(cli, process)
            kept = answered(cli)
            assert {key: kept[key] for key in before} == before
            if kept:
                assert_agrees(cli.rows)
            before = kept
            process = await cli.start("resume")
        server.seconds_per_token = 0.0
        done = await cli.finish(process, seconds=120)
        assert done.code == 0, done.err
        print(f"{kills} kills, {len(server.requests)} requests for 200 prompts, {len(before)} answered before the last")
        assert len(server.requests) <= 200 + kills * seats
    assert_done_once(cli, 200, before)
