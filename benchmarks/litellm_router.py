"""LiteLLM's Router as a contender, as its users call it. Nothing of it may leave this machine."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.prompts import Prompt

# Read when it is imported: else it fetches prices from its makers.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
from litellm.router import Router

GROUP = "group"


async def ask_all(
    ports: Sequence[int],
    requests: Sequence[list[dict[str, str]]],
    in_flight: int,
    model: str,
    max_tokens: int,
    strategy: str = "simple-shuffle",
) -> float:
    """Ask for all `requests`, lists of messages, `in_flight` at a time, streamed; the seconds it took."""
    router = Router(
        model_list=[
            {
                "model_name": GROUP,
                "litellm_params": {
                    "model": f"openai/{model}",
                    "api_base": f"http://127.0.0.1:{port}/v1",
                    "api_key": "none",
                },
            }
            for port in ports
        ],
        routing_strategy=strategy,
    )
    answers: list[str] = []
    left = iter(requests)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(_lane(router, left, answers, max_tokens))
    seconds = time.perf_counter() - began
    assert len(answers) == len(requests), f"{len(answers)} answers to {len(requests)} requests"
    return seconds


def document_first(prompt: Prompt) -> list[dict[str, str]]:
    """The messages that distllm sends too."""
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.question}]


def question_first(prompt: Prompt) -> list[dict[str, str]]:
    """The question, then the document: as most people write prompts."""
    return [{"role": "user", "content": f"{prompt.question}\n\n{prompt.system}"}]


async def _lane(router: Any, left: Iterator[list[dict[str, str]]], answers: list[str], max_tokens: int) -> None:
    for messages in left:
        stream = await router.acompletion(
            model=GROUP,
            messages=messages,
            max_tokens=max_tokens,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
        )
        words: list[str] = []
        async for chunk in stream:
            words.extend(choice.delta.content or "" for choice in chunk.choices)
        answers.append("".join(words))
