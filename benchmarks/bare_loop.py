"""The least that a program does: tasks that take prompts from a list, and keep the answers in another."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence

import aiohttp

from benchmarks.prompts import Prompt
from distllm.workers.session import open_session

KEPT_SECONDS = 4.0


async def ask_all(
    ports: Sequence[int], prompts: Sequence[Prompt], in_flight: int, model: str, max_tokens: int, *, keep: bool
) -> float:
    """Ask all prompts, `in_flight` at a time; the seconds it took. Connections are used again if it may `keep` them."""
    answers: list[tuple[str, dict[str, int]]] = []
    urls = [f"http://127.0.0.1:{port}/v1/chat/completions" for port in ports]
    left = iter(prompts)
    async with open_session(keep_alive=KEPT_SECONDS if keep else None) as session:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(in_flight):
                url = urls[number % len(urls)]
                group.create_task(_lane(session, url, left, answers, model, max_tokens))
        seconds = time.perf_counter() - began
    assert len(answers) == len(prompts), f"{len(answers)} answers to {len(prompts)} prompts"
    return seconds


async def _lane(
    session: aiohttp.ClientSession,
    url: str,
    left: Iterator[Prompt],
    answers: list[tuple[str, dict[str, int]]],
    model: str,
    max_tokens: int,
) -> None:
    for prompt in left:
        body = {
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.question}],
            "model": model,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Content-Type": "application/json"}
        async with session.post(url, data=json.dumps(body).encode(), headers=headers) as response:
            response.raise_for_status()
            answers.append(await _read(response))


async def _read(response: aiohttp.ClientResponse) -> tuple[str, dict[str, int]]:
    """The answer in a stream of events, and what it cost."""
    words: list[str] = []
    usage: dict[str, int] = {}
    reason = None
    async for line in response.content:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            words.append(choice["delta"].get("content") or "")
            reason = choice["finish_reason"] or reason
    assert reason is not None, "an answer was cut"
    return "".join(words), usage
