"""The fake Ollama itself: what requests that the adapter never sends would meet."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from distllm.workers.session import open_session
from tests.fakes import FakeServer

WORDS = "dam " * 600


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


async def post(
    session: aiohttp.ClientSession, server: FakeServer, path: str, **body: Any
) -> tuple[int, list[dict[str, Any]]]:
    """The status, and the lines of the answer."""
    async with session.post(f"{server.url}{path}", json={"model": "m"} | body) as response:
        return response.status, [json.loads(line) async for line in response.content]


async def test_a_long_prompt_is_cut_to_half_the_window_in_silence(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", context=512) as server:
        message = [{"role": "user", "content": WORDS}]
        _, chat = await post(session, server, "/api/chat", messages=message)
        _, generate = await post(session, server, "/api/generate", prompt=WORDS)
    assert chat[-1]["prompt_eval_count"] == generate[-1]["prompt_eval_count"] == 258
    assert (chat[-1]["done"], chat[-1]["done_reason"]) == (True, "stop")


async def test_older_turns_vanish_until_the_rest_fits(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", context=512) as server:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": WORDS},
            {"role": "user", "content": "Why?"},
        ]
        status, lines = await post(session, server, "/api/chat", messages=messages)
        refused, _ = await post(session, server, "/api/chat", messages=messages, truncate=False)
    assert (status, refused) == (200, 400)
    assert lines[-1]["prompt_eval_count"] < 10


async def test_a_refusal_is_a_string_that_holds_the_json_of_the_server_behind(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", context=512, renders=False) as server:
        message = [{"role": "user", "content": WORDS}]
        status, (told,) = await post(session, server, "/api/chat", messages=message)
    assert status == 400
    assert json.loads(told["error"])["error"]["n_ctx"] == 512


async def test_without_raw_the_last_line_is_hundreds_of_kilobytes(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", context=100_000) as server:
        server.answer = lambda _: "yes"
        _, lines = await post(session, server, "/api/generate", prompt="dam " * 40_000)
        _, raw = await post(session, server, "/api/generate", prompt="dam " * 40_000, raw=True)
    assert len(json.dumps(lines[-1])) > 300_000
    assert "context" not in raw[-1]


async def test_another_window_reloads_and_forgets(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", context=4096) as server:
        for options in ({}, {}, {"num_ctx": 2048}, {"num_ctx": 2048}):
            await post(session, server, "/api/generate", prompt=WORDS, options=options)
    assert server.loads == [("m", 4096), ("m", 2048)]
    assert [seen.cached_tokens > 0 for seen in server.requests] == [False, True, False, True]


async def test_zero_counts_are_left_out_and_times_are_nanoseconds(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m") as server:
        server.answer = lambda _: ""
        _, lines = await post(session, server, "/api/generate", prompt="one two three", raw=True)
    assert lines[-1]["prompt_eval_duration"] == 6_000_000
    assert not {"eval_count", "eval_duration", "load_duration"} & lines[-1].keys()


async def test_a_thinking_model_thinks_unless_it_is_told_not_to(session: aiohttp.ClientSession) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    async with (
        FakeServer(kind="ollama", model="m", thinks="hm hm") as thinking,
        FakeServer(kind="ollama", model="m") as plain,
    ):
        _, lines = await post(session, thinking, "/api/chat", messages=messages, options={"num_predict": 3})
        _, short = await post(session, thinking, "/api/chat", messages=messages, think=False)
        status, _ = await post(session, plain, "/api/chat", messages=messages, think=True)
    assert [line["message"].get("thinking") for line in lines if "thinking" in line["message"]] == ["hm ", "hm "]
    assert lines[-1]["done_reason"] == "length", "thoughts use up the tokens of the answer"
    assert not any("thinking" in line["message"] for line in short)
    assert status == 400


async def test_a_request_without_a_prompt_only_loads(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m") as server:
        _, (line,) = await post(session, server, "/api/chat", messages=[])
    assert (line["done"], line["done_reason"], server.loads) == (True, "load", [("m", 8192)])


async def test_who_leaves_during_a_load_aborts_it(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", seconds_to_load=60) as server:
        asking = asyncio.create_task(post(session, server, "/api/generate", prompt="Why?"))
        await server.until(lambda: bool(server.requests))
        asking.cancel()
        await server.until(lambda: server.requests[0].ended == "disconnected")
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (server.loads, server.aborted_loads) == ([], 1)


async def test_no_headers_come_before_the_first_token(session: aiohttp.ClientSession) -> None:
    async with FakeServer(kind="ollama", model="m", seconds_to_load=60) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), session.post(f"{server.url}/api/chat", json={"model": "m"}):
                pass
        async with session.get(f"{server.url}/api/version") as response:
            assert response.status == 200
