"""The official client, as it is, at a service of ours."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.service.conftest import SOON, House

Json = dict[str, Any]
CHAT = "/v1/chat/completions"


def line(number: int | str, question: str = "", *, url: str = CHAT, system: str | None = None, **more: Any) -> Json:
    """A line of a batch's input."""
    messages = [{"role": "user", "content": question or f"Question {number}?"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    body = {"model": "fake-model", "messages": messages, "max_tokens": 50} | more
    return {"custom_id": f"c{number}", "method": "POST", "url": url, "body": body}


@dataclass
class Program:
    """A program that speaks OpenAI."""

    client: openai.AsyncOpenAI
    house: House

    async def send(self, *lines: Json | bytes, name: str = "in.jsonl") -> str:
        """Send a file; its id."""
        data = b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines)
        return (await self.client.files.create(file=(name, data), purpose="batch")).id

    async def batch(self, *lines: Json | bytes, endpoint: Any = CHAT, **more: Any) -> Batch:
        """Make a batch of lines."""
        key = await self.send(*lines)
        return await self.client.batches.create(input_file_id=key, endpoint=endpoint, completion_window="24h", **more)

    async def until(self, key: str, *states: str, seconds: float = SOON) -> Batch:
        """Wait until a batch is in one of some states."""
        found: list[Batch] = []

        async def there() -> bool:
            found[:] = [await self.client.batches.retrieve(key)]
            return found[0].status in states

        await self.house.until(there, seconds)
        return found[0]

    async def lines(self, key: str | None) -> list[Json]:
        """The lines of a file."""
        assert key is not None
        return [json.loads(each) for each in (await self.client.files.content(key)).text.splitlines()]


def program_of(house: House, **more: Any) -> Program:
    """A program at a house."""
    client = openai.AsyncOpenAI(base_url=f"{house.service.url}/v1", api_key="any", **more)
    return Program(client, house)


@pytest.fixture
async def program(house: House) -> AsyncIterator[Program]:
    """A program at a service that works."""
    found = program_of(house)
    yield found
    await found.client.close()


@pytest.fixture
async def early(idle: House) -> AsyncIterator[Program]:
    """A program at a service that has no worker."""
    found = program_of(idle)
    yield found
    await found.client.close()
