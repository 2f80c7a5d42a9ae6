"""One job over servers of every kind, two of them real, of which one is killed midway and comes back."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Cli
from tests.fakes.server import FakeServer

ROOT = Path(__file__).parents[2]
REAL = "SmolLM2-135M-Instruct.Q4_1"
ALIASES = {"small": [REAL, "smol:latest", "smol-studio"]}
PAPERS, MORE, QUESTIONS = 15, 12, ("What?", "How?", "Why?")


@asynccontextmanager
async def llama_server(port: int = 0, context: int = 2048) -> AsyncIterator[tuple[Process, int]]:
    """A real llama.cpp server, ready to answer, and its port."""
    command = [sys.executable, "-m", "tests.llama_server", "--port", str(port), "--context", str(context)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            address = (await process.stdout.readline()).decode().strip()
        yield process, urlsplit(address).port or 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def worker(name: str, kind: str, port: int, **more: object) -> dict[str, object]:
    return {"id": name, "type": kind, "port": port, **more}


def answered(cli: Cli) -> dict[str, int]:
    return dict(cli.rows("SELECT worker, count(*) FROM answers GROUP BY worker"))  # type: ignore[arg-type]


@pytest.mark.first
@pytest.mark.timeout(240)
async def test_servers_of_every_kind_share_a_job_and_one_of_them_may_die(cli: Cli) -> None:
    async with AsyncExitStack() as stack:
        chat = await stack.enter_async_context(FakeServer(kind="ollama", model="smol:latest", seconds_per_token=0.5))
        generate = await stack.enter_async_context(
            FakeServer(kind="ollama", model="smol:latest", seconds_per_token=0.5)
        )
        studio = await stack.enter_async_context(
            FakeServer(kind="lm_studio", model="smol-studio", seconds_per_token=0.5)
        )
        _, other_port = await stack.enter_async_context(llama_server())
        killed, port = await stack.enter_async_context(llama_server())
        workers = [
            worker("llama", "openai", port),
            worker("llama-raw", "lm_studio", other_port, endpoint="completions"),
            worker("ollama", "ollama", chat.port),
            worker("ollama-raw", "ollama", generate.port, endpoint="generate"),
            worker("studio", "lm_studio", studio.port),
        ]
        settings = {"workers": workers, "models": ALIASES, "health_check_interval": 0.5}
        cli.write("workers.json", json.dumps(settings))
        ask = [part for question in QUESTIONS for part in ("--prompt", question)]
        papers = str(cli.papers(PAPERS, words=60))
        working = await cli.start("submit", papers, *ask, "--model", "small", "--max-tokens", "12")
        await cli.until(lambda: answered(cli).get("llama", 0) >= 2)
        killed.kill()
        await killed.wait()
        before = answered(cli)["llama"]
        for fake in (chat, generate, studio):
            # The job goes on until the one that was killed is back, and has new work.
            fake.seconds_per_token = 4.0
        await stack.enter_async_context(llama_server(port))
        for number in range(MORE):
            cli.write(f"more/{number}.txt", f"number {number} " * 30)
        await cli.run("submit", "--detach", "more", *ask, "--model", "small", "--max-tokens", "12")
        await cli.until(lambda: answered(cli)["llama"] > before)
        for fake in (chat, generate, studio):
            fake.seconds_per_token = 0.0
        done = await cli.finish(working, seconds=180)
        assert (await cli.run("resume")).code == 0
    assert done.code == 0, done.err
    assert "worker llama" in done.err
    found = answered(cli)
    assert found.keys() == {"llama", "llama-raw", "ollama", "ollama-raw", "studio"}, found
    assert sum(found.values()) == (PAPERS + MORE) * len(QUESTIONS)
    assert cli.rows("SELECT count(DISTINCT document || prompt) FROM answers") == [((PAPERS + MORE) * len(QUESTIONS),)]
    assert {seen.path for seen in generate.requests} == {"/api/generate"}
    assert {seen.path for seen in chat.requests} == {"/api/chat"}
    assert cli.rows("SELECT max(failures) FROM prompts")[0][0] <= 1
    assert cli.rows("PRAGMA integrity_check") == [("ok",)]
