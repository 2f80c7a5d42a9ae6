"""The fakes themselves: what other tests rely on."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp

from distllm.domain.models import Call, Limits, Outcome, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.session import open_session
from tests.fakes import Behaviour, FakeServer

LIMITS = Limits(10, 10, 20)


async def ask(server: FakeServer, session: aiohttp.ClientSession, system: str) -> Outcome:
    spec = WorkerSpec("w", WorkerType.OPENAI, host=server.host, port=server.port)
    return await make_worker(spec, session).ask(Call("m", system, "Why?", 9, 0.0, 1), LIMITS)


async def test_each_slot_keeps_the_paper_it_read_last() -> None:
    async with FakeServer(slots=2) as server, open_session() as session:
        for paper in ("one " * 50, "two " * 50, "one " * 50, "two " * 50):
            await ask(server, session, paper)
    assert [seen.cached_tokens > 40 for seen in server.requests] == [False, False, True, True]
    assert [seen.slot for seen in server.requests] == [0, 1, 0, 1]


async def test_busy_slots_share_nothing_and_the_surplus_queues() -> None:
    async with FakeServer(slots=2, seconds_per_token=0.02) as server, open_session() as session:
        await asyncio.gather(*(ask(server, session, "one " * 50) for _ in range(3)))
    assert [seen.cached_tokens > 40 for seen in server.requests] == [False, False, True]
    assert {seen.ended for seen in server.requests} == {"answered"}


async def test_a_client_that_leaves_is_noticed() -> None:
    async with FakeServer() as server, open_session() as session:
        server.behave(Behaviour(headers_after=60))
        asking = asyncio.create_task(ask(server, session, "a paper"))
        await server.until(lambda: bool(server.requests))
        asking.cancel()
        await server.until(lambda: server.requests[0].ended == "disconnected")


async def test_lm_studio_says_200_to_anything() -> None:
    async with (
        FakeServer(kind="lm_studio") as server,
        open_session() as session,
        session.get(f"{server.url}/health/of/what") as response,
    ):
        assert response.status == 200
        assert "Unexpected endpoint" in (await response.json())["error"]


async def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes", "--answer", "in March", "--log", str(log)),
        "--until-stdin-closes",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    url = (await process.stdout.readline()).decode().strip()
    server = FakeServer(port=int(url.rpartition(":")[2]))
    async with open_session() as session:
        outcome = await ask(server, session, "a paper")
    assert outcome.answer == "in March"
    assert json.loads(log.read_text())["question"] == "Why?"
    process.stdin.close()
    assert await process.wait() == 0
    await process.stdout.read()
