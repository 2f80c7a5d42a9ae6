"""The command itself: it is killed, stopped, started twice, and waits for its hours."""

import asyncio
import json
import signal
import stat
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest

from distllm.store.locks import coordinator_lock
from tests.cli.conftest import Cli, cli
from tests.cli.terminal import on_terminal
from tests.cli.test_kill import answered
from tests.fakes.behaviour import HANGS, HELD
from tests.fakes.server import FakeServer

__all__ = ["cli"]

SOON = 20.0


@asynccontextmanager
async def served(cli: Cli, *options: str) -> AsyncIterator[tuple[Process, aiohttp.ClientSession]]:
    """A service in a process of its own, and a client of it."""
    process = await cli.start("serve", "--port", "0", "--json", *options)
    async with aiohttp.ClientSession((await told(process))["url"]) as client:
        yield process, client


async def told(process: Process) -> dict[str, Any]:
    """What a service says when it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
    if not line:
        assert process.stderr is not None
        pytest.fail((await process.stderr.read()).decode())
    return dict(json.loads(line))


async def until_said(process: Process, words: str) -> str:
    """Read standard error up to a line that has some words."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while words not in (line := (await process.stderr.readline()).decode()):
            assert line, f"it ended without saying {words!r}"
    return line


async def submit(client: aiohttp.ClientSession, *texts: str, **asked: Any) -> int:
    """Make a job of texts; its number."""
    body = {"texts": [{"name": f"{n}.txt", "text": text} for n, text in enumerate(texts)]}
    body |= asked or {"prompts": ["What?", "Why?"]}
    async with client.post("/api/v1/jobs", json=body) as response:
        assert response.status == 201, await response.text()
        return int((await response.json())["job_id"])


async def test_killed_amid_three_jobs_it_goes_on_with_all_of_them_when_it_is_started_again(cli: Cli) -> None:
    asks: list[dict[str, Any]] = [{"preset": "summary"}, {"prompts": ["What?", "Why?"]}]
    asks.append({"preset": "research", "priority": 5})
    total = 4 * (3 + 2 + 5)
    async with FakeServer(slots=2, seconds_per_token=0.02) as server:
        cli.use(server)
        async with served(cli) as (process, client):
            for number, asked in enumerate(asks):
                await submit(client, *(f"Paper {number}, {text}." for text in range(4)), **asked)
            await cli.until(lambda: len(answered(cli)) >= 5)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        before = answered(cli)
        assert cli.rows("SELECT count(*) FROM job_progress WHERE finished_at IS NULL") == [(3,)]
        assert not coordinator_lock(cli.database).is_held()
        server.seconds_per_token = 0.0
        async with served(cli) as (process, _):
            await cli.until(lambda: cli.rows("SELECT DISTINCT state FROM job_progress") == [("completed",)])
            process.send_signal(signal.SIGTERM)
            assert (await cli.finish(process)).code == 0
        # What was in flight on two slots, and what they had answered and was not stored yet.
        assert len(server.requests) <= total + 2 * 2
    after = answered(cli)
    assert len(after) == total
    assert {key: after[key] for key in before} == before
    assert cli.rows("SELECT count(*) FROM jobs") == [(3,)]


async def test_told_to_stop_it_finishes_what_is_in_flight_and_answers_meanwhile(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        server.behave(HELD)
        async with served(cli) as (process, client):
            await submit(client, "A paper.", "Another.")
            await server.until(lambda: len(server.requests) == 1, SOON)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SOON):
                stopping = False
                while not stopping:
                    async with client.get("/api/v1") as response:
                        stopping = (await response.json())["stopping"]
            assert process.returncode is None
            server.release()
            done = await cli.finish(process)
        assert (done.code, done.err) == (0, "stopped; all answers are kept. Go on with: distllm serve\n")
        assert len(server.requests) == 1
    assert cli.rows("SELECT state, failures, losses, count(*) FROM prompts GROUP BY 1, 2, 3 ORDER BY 1") == [
        ("done", 0, 0, 1),
        ("pending", 0, 0, 3),
    ]
    assert not cli.database.with_name("distllm.db-service.json").exists()


async def test_told_twice_it_goes_at_once_and_loses_nothing(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        server.behave(HANGS)
        async with served(cli) as (process, client):
            await submit(client, "A paper.")
            listening = await client.get("/api/v1/events")
            await server.until(lambda: len(server.requests) == 1, SOON)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            done = await cli.finish(process, seconds=SOON)
            listening.close()
        assert (done.code, "will be asked again" in done.err) == (130, True)
    assert cli.rows("SELECT DISTINCT state, failures, losses FROM prompts") == [("pending", 0, 0)]


async def test_a_second_service_names_the_process_of_the_first(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        async with served(cli) as (process, _):
            done = await cli.run("serve", "--port", "0")
            assert done.code == 1
            assert done.err.startswith(f"distllm: process {process.pid} serves ")
            assert len(done.err.splitlines()) == 1


async def test_behind_a_submit_it_waits_and_takes_over(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        server.behave(HELD)
        cli.papers(1)
        first = await cli.start("submit", "papers", "--prompt", "What?")
        await server.until(lambda: len(server.requests) == 1, SOON)
        async with served(cli) as (process, client):
            await until_said(process, f"process {first.pid} works this database already")
            async with client.get("/api/v1") as response:
                facts = await response.json()
            assert facts | {"coordinating": False, "coordinator": first.pid} == facts
            async with client.get("/health/ready") as response:
                assert response.status == 200
            # Whoever is the coordinator works what is submitted here.
            await submit(client, "Another paper.")
            server.release()
            assert (await cli.finish(first)).code == 0
            await cli.until(lambda: cli.rows("SELECT DISTINCT state FROM job_progress") == [("completed",)])
            following = await cli.run("submit", "papers", "--prompt", "How?")
            assert (following.code, f"process {process.pid} works" in following.err) == (0, True)


async def test_a_client_that_is_interrupted_leaves_the_job_with_the_service(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        server.behave(HELD)
        cli.papers(2)
        async with served(cli) as (_, client):
            url = str(client._base_url).rstrip("/")
            sending = await cli.start("--server", url, "submit", "papers", "--prompt", "What?")
            await server.until(lambda: len(server.requests) == 1, SOON)
            sending.send_signal(signal.SIGINT)
            done = await cli.finish(sending)
            assert (done.code, f"distllm --server {url} status" in done.err) == (130, True), done.err
            server.release()
            done = await cli.run("--server", url, "resume", "1")
            assert (done.code, "completed" in done.out) == (0, True), done.err


async def test_outside_of_its_hours_it_asks_nothing_and_status_says_so(cli: Cli) -> None:
    now = datetime.now().astimezone()
    begin, end = now + timedelta(hours=2), now + timedelta(hours=3)
    hours = f"{begin:%H:%M}-{end:%H:%M}"
    async with FakeServer() as server:
        cli.use(server)
        async with served(cli, "--hours", hours) as (process, client):
            await until_said(
                process, f"outside of the working hours ({hours}): nothing more is asked before {begin:%H:%M}"
            )
            job = await submit(client, "A paper.")
            following = await cli.start("resume")
            await until_said(following, f"waiting for the working hours ({hours}), until {begin:%H:%M}")
            following.send_signal(signal.SIGTERM)
            assert (await cli.finish(following)).code == 130
            status = (await cli.run("status", str(job))).out
            assert f"for the working hours: goes on at {begin:%H:%M}" in status
            said = (await cli.run("status")).out
            assert f"outside of its working hours ({hours}) and goes on at {begin:%H:%M}" in said
            rests = f"process {process.pid} is outside of its working hours ({hours}) and goes on at {begin:%H:%M}"
            for service in ([], ["--server", str(client._base_url).rstrip("/")]):
                async with on_terminal(cli, *service, "status", "--watch", columns=120) as terminal:
                    await terminal.until(rests)
            async with client.get(f"/api/v1/jobs/{job}") as response:
                facts = await response.json()
            assert facts == json.loads((await cli.run("status", str(job), "--json")).out)
            assert datetime.fromisoformat(facts["rests_until"]).strftime("%H:%M") == f"{begin:%H:%M}"
            process.send_signal(signal.SIGTERM)
            assert (await cli.finish(process)).code == 0
        assert server.requests == []


async def test_at_any_address_it_shows_its_token_once_and_wants_it(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        async with served(cli, "--host", "0.0.0.0") as (process, client):
            token = (await until_said(process, "needs this token")).split()[-1]
            kept = cli.folder / "distllm.db-token"
            assert (kept.read_text().strip(), stat.S_IMODE(kept.stat().st_mode)) == (token, 0o600)
            for headers, status in (({}, 401), ({"Authorization": f"Bearer {token}"}, 200)):
                async with client.get("/api/v1/jobs", headers=headers) as response:
                    assert response.status == status
            process.send_signal(signal.SIGTERM)
            assert (await cli.finish(process)).code == 0
        async with served(cli, "--host", "0.0.0.0") as (process, _):
            process.send_signal(signal.SIGTERM)
            said = (await cli.finish(process)).err
            assert "needs the token in distllm.db-token" in said
            assert token not in said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--hours", "22"], 2, "'22' is no range of hours"),
        (["--port", "70000"], 2, "--port"),
        (["--host", "192.0.2.1"], 1, "cannot listen at 192.0.2.1"),
        (["--host", "no such host"], 1, "cannot listen at no such host"),
    ],
)
async def test_a_mistake_is_one_line(cli: Cli, options: list[str], code: int, said: str) -> None:
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run("serve", *options)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1 + ("token" in done.err)
