"""One request as a fake server saw it, and the stream it writes in answer."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.behaviour import Behaviour, Ending


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
    slot: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    sent_tokens: int = 0
    ended: str | None = None
    """`answered`, `failed` (on purpose), or `disconnected` by the client or by `stop`."""


class Writer:
    """Writes the chunks of one stream in the form of its endpoint."""

    def __init__(self, response: web.StreamResponse, seen: Seen, model: str) -> None:
        self._response = response
        self._seen = seen
        self._common = {"id": "x", "created": 1, "model": model}
        self._raw = seen.path == "/v1/completions"

    async def raw(self, text: str) -> None:
        data, step = text.encode(errors="backslashreplace"), self._seen.behaviour.crumbs
        for at in range(0, len(data), step or len(data)):
            await self._response.write(data[at : at + (step or len(data))])
            if step:
                await asyncio.sleep(0)

    async def event(self, payload: object) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        end = self._seen.behaviour.line_end
        await self.raw(f"data: {text}{end}{end}")

    async def delta(self, delta: dict[str, object], reason: str | None = None, padding: int = 0) -> None:
        choice: dict[str, object] = {"index": 0, "finish_reason": reason, "delta": delta}
        if self._raw:
            text = delta.get("content") or ""
            choice = {"index": 0, "finish_reason": reason, "text": text}
            if "reasoning_content" in delta:
                choice["delta"] = delta
        more = {"padding": "x" * padding} if padding else {}
        await self.event({**self._common, **more, "choices": [choice]})

    async def end(self, request: web.Request, reason: str) -> None:
        seen, b = self._seen, self._seen.behaviour
        if b.ending is Ending.HANG:
            await asyncio.Event().wait()
        while b.ending is Ending.ENDLESS:
            await asyncio.sleep(b.per_token)
            await self.delta({"content": " and" * (1 if b.per_token else 100)})
        if b.ending is Ending.ABORT:
            abort(request, seen)
        if b.ending is Ending.ERROR:
            await self.event({"error": b.error})
        if b.ending in (Ending.ERROR, Ending.EOF):
            seen.ended = "failed"
            return
        if b.ending is not Ending.NO_REASON:
            await self.delta({}, reason)
        if b.usage:
            await self.event({**self._common, "choices": [], **self._usage()})
        if b.ending is not Ending.NO_DONE:
            await self.event("[DONE]")

    def _usage(self) -> dict[str, object]:
        seen = self._seen
        cached = min(seen.cached_tokens, seen.prompt_tokens)
        computed = seen.prompt_tokens - cached
        usage = {
            "prompt_tokens": seen.prompt_tokens,
            "completion_tokens": seen.sent_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        timings = {"cache_n": cached, "prompt_n": computed, "prompt_ms": 2.0 * computed}
        return {"usage": usage, "timings": {**timings, "predicted_ms": 10.0 * seen.sent_tokens}}


def abort(request: web.Request, seen: Seen) -> None:
    seen.ended = "failed"
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("reset on purpose")
