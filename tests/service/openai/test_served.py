"""The command itself, for programs that speak OpenAI: with the real model, and killed at any point."""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.cli.conftest import Cli, cli
from tests.fakes.server import FakeServer
from tests.service.openai.conftest import CHAT, line
from tests.service.test_serving import told

__all__ = ["cli"]

PAPER = Path(__file__).parents[3] / "jobs/quickstart/papers/spaced-quizzes-in-evening-courses.txt"


@asynccontextmanager
async def served(cli: Cli) -> AsyncIterator[tuple[Process, openai.AsyncOpenAI]]:
    """A service in a process of its own, and the official client."""
    process = await cli.start("serve", "--port", "0", "--json")
    async with openai.AsyncOpenAI(base_url=f"{(await told(process))['url']}/v1", api_key="any") as client:
        yield process, client


async def sent(client: openai.AsyncOpenAI, lines: list[dict[str, Any]]) -> Batch:
    """A batch of lines."""
    data = b"\n".join(json.dumps(each).encode() for each in lines)
    file = await client.files.create(file=("in.jsonl", data), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


async def ended(cli: Cli, client: openai.AsyncOpenAI, key: str, seconds: float = 120.0) -> Batch:
    """Wait for the end of a batch."""
    await cli.until(lambda: cli.rows(f"SELECT status FROM batches WHERE key = '{key}'") != [(None,)], seconds)
    return await client.batches.retrieve(key)


async def outputs(client: openai.AsyncOpenAI, batch: Batch) -> list[dict[str, Any]]:
    """The lines of its output."""
    assert batch.output_file_id is not None
    return [json.loads(each) for each in (await client.files.content(batch.output_file_id)).text.splitlines()]


@pytest.mark.first
@pytest.mark.timeout(300)
async def test_twenty_requests_of_one_system_message_read_it_once_with_the_real_model(cli: Cli) -> None:
    system = PAPER.read_text(encoding="utf-8")
    async with served(cli) as (_, client):
        [model] = [each.id async for each in client.models.list()]
        lines = [line(n, f"What is said of item {n}?", system=system, model=model, max_tokens=4) for n in range(20)]
        done = await ended(cli, client, (await sent(client, lines)).id, 200)
        assert (done.status, done.error_file_id) == ("completed", None)
        answers = [each["response"]["body"] for each in await outputs(client, done)]
        assert len(answers) == 20
        used = [each["usage"] for each in answers]
        anew = sum(each["prompt_tokens"] - each["prompt_tokens_details"]["cached_tokens"] for each in used)
        whole = min(each["prompt_tokens"] for each in used)
        # The message once, and the questions, which are at most 40 tokens each.
        assert whole > 500
        assert whole <= anew + 40
        assert anew < whole + 20 * 40
        assert anew < 2 * whole
        assert cli.rows("SELECT DISTINCT proof FROM answers") == [("proven",)]
        chunks = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, stream=True
        )
        assert "".join([each.choices[0].delta.content or "" async for each in chunks])


LINES = 200
"""Of 20 kB each, so that a few make a transaction."""

MOMENTS = {
    "looked through": "SELECT 1 FROM batches WHERE job_id IS NULL",
    "made into prompts": "SELECT 1 FROM jobs WHERE built BETWEEN 1 AND 190 AND submitted_at IS NULL",
    "asked": "SELECT 1 FROM job_progress WHERE done BETWEEN 20 AND 150",
    "written": "SELECT 1 FROM batches WHERE finalizing_at IS NOT NULL AND ended_at IS NULL "
    "AND EXISTS (SELECT 1 FROM file_chunks c JOIN files f ON f.id = c.file_id WHERE f.bytes IS NULL)",
}


async def killed_when(cli: Cli, process: Process, moment: str) -> None:
    """Kill a service at a moment."""
    async with asyncio.timeout(120):
        while not cli.rows(MOMENTS[moment]):  # noqa: ASYNC110 - what another process does sets no event here
            await asyncio.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert cli.rows(MOMENTS[moment]), f"it was over before it was killed: {moment}"


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_killed_while_it_looks_makes_asks_and_writes_it_answers_each_line_once(cli: Cli) -> None:
    async with FakeServer(slots=2, context=100_000, answer=lambda seen: "x" * 60_000) as server:
        cli.use(server)
        lines = [line(n, f"Question {n}: {'why ' * 5_000}?", max_tokens=1_000) for n in range(LINES - 1)]
        lines.append(line("bad", n=2))
        batch = None
        for moment in MOMENTS:
            async with served(cli) as (process, client):
                batch = batch or await sent(client, lines)
                await killed_when(cli, process, moment)
        assert batch is not None
        async with served(cli) as (_, client):
            done = await ended(cli, client, batch.id)
            assert done.request_counts is not None
            assert (done.status, done.request_counts.model_dump()) == (
                "completed",
                {"total": LINES, "completed": LINES - 1, "failed": 1},
            )
            told_of = [each["custom_id"] for each in await outputs(client, done)]
            assert sorted(told_of) == sorted(f"c{n}" for n in range(LINES - 1))
            assert cli.rows("SELECT count(*) FROM jobs") == [(1,)]
            # The input, the output and the errors; what was begun is gone.
            assert cli.rows("SELECT count(*), count(bytes) FROM files") == [(3, 3)]
        # What was in flight on two slots, and what they had answered and was not stored yet.
        assert len(server.requests) <= LINES + 2 * 20
