"""One request as a fake server saw it, and the stream it writes in answer."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.behaviour import Behaviour, Caching, Ending


@dataclass(slots=True)
class Seen:
    """One request for an answer, as the server saw it. `ended` is None while it runs."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    system: str
    question: str
    behaviour: Behaviour
    started: float = field(default_factory=time.monotonic)
    model: str | None = None
    """What answers it, once that is known."""
    window: int = 0
    """The context window that it met, where requests may choose one."""
    templated: bool = False
    """Whether Ollama put its template around the prompt."""
    caching: Caching = Caching.TOLD
    slot: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    sent_tokens: int = 0
    prefill: float = 0.002
    decode: float = 0.01
    """The seconds that it says it took for each token read, and written."""
    load: float = 0.0
    """Those for which the model was loaded before."""
    ended: str | None = None
    """`answered`, `failed` (on purpose), or `disconnected` by the client or by `stop`."""

    @property
    def raw(self) -> bool:
        """Whether it has a prompt instead of messages."""
        return "messages" not in self.body


class Writer(ABC):
    """Writes the answer to one request in the form of its endpoint."""

    content_type: str

    def __init__(self, request: web.Request, seen: Seen) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": self.content_type})
        self._request = request
        self._seen = seen

    async def open(self) -> None:
        """Send the headers, if the server sends them before the first token."""
        await self.response.prepare(self._request)

    async def raw(self, text: str) -> None:
        if not self.response.prepared:
            await self.response.prepare(self._request)
        data, step = text.encode(errors="backslashreplace"), self._seen.behaviour.crumbs
        for at in range(0, len(data), step or len(data)):
            await self.response.write(data[at : at + (step or len(data))])
            if step:
                await asyncio.sleep(0)

    @abstractmethod
    async def ping(self) -> None:
        """Say that the server is there, if it says so before the first token."""

    @abstractmethod
    async def begin(self) -> None:
        """Say whose answer it will be, if the server says so before the first token."""

    @abstractmethod
    async def line(self, payload: object) -> None:
        """One object of the stream."""

    @abstractmethod
    async def think(self, text: str) -> None:
        """A piece of reasoning."""

    @abstractmethod
    async def say(self, text: str, padding: int = 0) -> None:
        """A piece of the answer."""

    @abstractmethod
    async def close(self, reason: str) -> None:
        """End the stream as its behaviour wants, where that is not an error."""

    async def end(self, reason: str) -> None:
        """End the stream as its behaviour wants."""
        seen, b = self._seen, self._seen.behaviour
        if b.ending is Ending.HANG:
            await asyncio.Event().wait()
        while b.ending is Ending.ENDLESS:
            await asyncio.sleep(b.per_token)
            await self.say(" and" * (1 if b.per_token else 100))
        if b.ending is Ending.ABORT:
            abort(self._request, seen)
        if b.ending is Ending.ERROR:
            await self.line({"error": b.error})
        if b.ending in (Ending.ERROR, Ending.EOF):
            seen.ended = "failed"
        else:
            await self.close(reason)
        if not self.response.prepared:
            await self.response.prepare(self._request)


class EventWriter(Writer):
    """Server-sent events in OpenAI's form; if `timed`, with what llama.cpp adds."""

    content_type = "text/event-stream"

    def __init__(self, request: web.Request, seen: Seen, model: str, *, timed: bool) -> None:
        super().__init__(request, seen)
        self._timed = timed
        self._common = {"id": "x", "created": 1, "model": model}

    async def ping(self) -> None:
        end = self._seen.behaviour.line_end
        await self.raw(f":{end}{end}")

    async def begin(self) -> None:
        await self._delta({"role": "assistant", "content": None})

    async def line(self, payload: object) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        end = self._seen.behaviour.line_end
        await self.raw(f"data: {text}{end}{end}")

    async def think(self, text: str) -> None:
        await self._delta({"reasoning_content": text})

    async def say(self, text: str, padding: int = 0) -> None:
        await self._delta({"content": text}, padding=padding)

    async def close(self, reason: str) -> None:
        b = self._seen.behaviour
        if b.ending is not Ending.NO_REASON:
            await self._delta({}, reason)
        costs = self.costs()
        if b.usage and costs:
            await self.line({**self._common, "choices": [], **costs})
        if b.ending is not Ending.NO_DONE:
            await self.line("[DONE]")

    async def _delta(self, delta: dict[str, object], reason: str | None = None, padding: int = 0) -> None:
        choice: dict[str, object] = {"index": 0, "finish_reason": reason, "delta": delta}
        if self._seen.raw:
            text = delta.get("content") or ""
            choice = {"index": 0, "finish_reason": reason, "text": text}
            if "reasoning_content" in delta:
                choice["delta"] = delta
        more = {"padding": "x" * padding} if padding else {}
        await self.line({**self._common, **more, "choices": [choice]})

    def costs(self) -> dict[str, object]:
        """What the request cost."""
        seen = self._seen
        cached = min(seen.cached_tokens, seen.prompt_tokens)
        computed = seen.prompt_tokens - cached
        if seen.caching is not Caching.TOLD:
            counted = seen.prompt_tokens if seen.caching is Caching.COUNTED else computed
            return {"usage": {"prompt_tokens": counted, "completion_tokens": seen.sent_tokens}}
        usage = {
            "prompt_tokens": seen.prompt_tokens,
            "completion_tokens": seen.sent_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if not self._timed:
            return {"usage": usage}
        timings = {"cache_n": cached, "prompt_n": computed, "prompt_ms": 1000 * seen.prefill * computed}
        return {"usage": usage, "timings": {**timings, "predicted_ms": 1000 * seen.decode * seen.sent_tokens}}


class LineWriter(Writer):
    """Ollama's lines of JSON: no headers before the first token, no pings; the last line tells everything.

    `NO_DONE` ends with `done: false`.
    """

    content_type = "application/x-ndjson"

    async def open(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    async def begin(self) -> None:
        pass

    async def line(self, payload: object) -> None:
        await self.raw(json.dumps(payload, ensure_ascii=False) + self._seen.behaviour.line_end)

    async def think(self, text: str) -> None:
        await self.line(self._piece("", thinking=text))

    async def say(self, text: str, padding: int = 0) -> None:
        await self.line(self._piece(text) | ({"padding": "x" * padding} if padding else {}))

    async def close(self, reason: str) -> None:
        b = self._seen.behaviour
        last = self._piece("") | {"done": b.ending is not Ending.NO_DONE}
        if b.ending not in (Ending.NO_REASON, Ending.NO_DONE):
            last["done_reason"] = reason
        if b.usage and last["done"]:
            last |= self._costs()
        if self._seen.path == "/api/generate" and not self._seen.body.get("raw"):
            last["context"] = [100_000 + n for n in range(self._seen.prompt_tokens + self._seen.sent_tokens)]
        await self.line(last)

    def _piece(self, text: str, thinking: str | None = None) -> dict[str, object]:
        common: dict[str, object] = {"model": self._seen.model, "created_at": "2026-01-01T00:00:00Z", "done": False}
        thought = {} if thinking is None else {"thinking": thinking}
        if self._seen.path == "/api/generate":
            return common | {"response": text} | thought
        return common | {"message": {"role": "assistant", "content": text} | thought}

    def _costs(self) -> dict[str, object]:
        """Counts, and nanoseconds; what is zero is left out."""
        seen = self._seen
        computed = seen.prompt_tokens - min(seen.cached_tokens, seen.prompt_tokens)
        costs = {
            "total_duration": 2_000_000 * computed + 10_000_000 * seen.sent_tokens,
            "load_duration": round(1e9 * seen.load),
            "prompt_eval_count": computed if seen.caching is Caching.LEFT_OUT else seen.prompt_tokens,
            "prompt_eval_duration": round(1e9 * seen.prefill * computed),
            "eval_count": seen.sent_tokens,
            "eval_duration": round(1e9 * seen.decode * seen.sent_tokens),
        }
        return {name: cost for name, cost in costs.items() if cost}


def abort(request: web.Request, seen: Seen) -> None:
    seen.ended = "failed"
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("reset on purpose")
