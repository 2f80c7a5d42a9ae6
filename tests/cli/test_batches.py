"""What a program had answered is seen, and gone on with, from the command line."""

import asyncio
import json

import pytest

from distllm import LoadBalancer
from distllm.domain.models import StoredRequest
from distllm.store.database import open_database
from distllm.store.requests import NewBatch, NewRequest, add_requests, open_batch
from tests.api.conftest import config_of
from tests.cli.conftest import Cli
from tests.fakes.behaviour import EMPTY, GOOD, HANGS
from tests.fakes.server import FakeServer


async def test_a_batch_is_shown_with_its_questions(cli: Cli) -> None:
    async with FakeServer() as server:
        server.behave(EMPTY)
        async with LoadBalancer(config_of(server, max_retries=0), db=cli.database) as balancer:
            await balancer.process_batch(["Who built the dam, and when was that?", "Why?"], name="dams")
    status = (await cli.run("status", "1")).out
    assert "Job 1, dams: failed" in status
    assert "1 of 2 (1 failed)" in status
    assert "a prompt of the batch: " in status
    assert "None" not in status
    assert "documents" not in status
    shown = (await cli.run("results", "1")).out
    assert shown.index("1: Who built the dam, and when was that?") < shown.index("(failed: ")
    assert shown.index("2: Why?") < shown.index("Answer to: Why?")
    lines = [json.loads(line) for line in (await cli.run("results", "1", "--json")).out.splitlines()]
    assert [(line["number"], line["question"], line["state"]) for line in lines] == [
        (1, "Who built the dam, and when was that?", "failed"),
        (2, "Why?", "done"),
    ]
    assert (await cli.run("results", "1", "--document", "x")).code == 2
    found = await cli.run("query", "--format", "json", "select prompt, document, answer from answers")
    assert json.loads(found.out) == [{"prompt": None, "document": None, "answer": "Answer to: Why?"}]


async def test_a_batch_that_was_cancelled_midway_is_resumed_and_then_known_to_its_program(cli: Cli) -> None:
    prompts = [f"Question {n}?" for n in range(6)]
    async with FakeServer() as server:
        server.behave_always(HANGS)
        async with LoadBalancer(config_of(server), db=cli.database) as balancer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await balancer.process_batch(prompts)
        server.behave_always(GOOD)
        cli.use(server)
        before = len(server.requests)
        done = await cli.run("resume")
        assert done.code == 0, done.err
        assert "6 of 6 prompts answered" in done.out
        async with LoadBalancer(config_of(server), db=cli.database) as balancer:
            results = await balancer.process_batch(prompts)
        assert len(server.requests) == before + 6
    assert [result.text for result in results] == [f"Answer to: {prompt}" for prompt in prompts]


async def test_a_batch_whose_program_was_killed_while_it_wrote_it_is_left_to_that_program(cli: Cli) -> None:
    async with open_database(cli.database) as database:
        batch = NewBatch("dams", "any", {}, 0, "batch 1")
        job_id, _ = await database.write(lambda tx: open_batch(tx, batch, (), 1.0))
        asked = NewRequest("request 1", "", 5, 105, 100, StoredRequest("Why?", 100, 0.0).to_json())
        await database.write(lambda tx: add_requests(tx, job_id, 0, [asked], (), 1.0))
    assert "its program goes on with it" in (await cli.run("status", "1")).out
    assert (await cli.run("resume")).out.strip() == "Nothing is unfinished."
    assert (await cli.run("cancel", "1")).code == 0
