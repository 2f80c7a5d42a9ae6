"""A server on the loopback that speaks OpenAI's API as llama.cpp's server does, without any model."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from tests.fakes.behaviour import GOOD, Behaviour, Ending
from tests.fakes.slots import Slot, Slots, tokenize
from tests.fakes.stream import Seen, Writer, abort


class FakeServer:
    """Answers every request well, except those that `behave` has scripted.

        async with FakeServer(model="m") as server:
            server.behave(BUSY)                   # the next request; all after it are answered well
            ...
            assert server.requests[0].question

    `stop` ends it as a kill would, and `start` brings it back on the same port. `kind` is whom it resembles
    in its list of models: `llamacpp`, `vllm`, `lm_studio` (which also says 200 to unknown paths) or `plain`.
    Prompt tokens are what `tokenize` counts; those that a slot has cached take no time.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        model: str = "fake-model",
        models: tuple[str, ...] | None = None,
        kind: str = "llamacpp",
        slots: int = 1,
        context: int = 8192,
        api_key: str | None = None,
        seconds_per_prompt_token: float = 0.0,
        seconds_per_token: float = 0.0,
        answer: Callable[[Seen], str] | None = None,
        on_request: Callable[[Seen], None] | None = None,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.model = model
        self.models = models or (model,)
        self.kind = kind
        self.slot_count = slots
        self.context = context
        self.api_key = api_key
        self.seconds_per_prompt_token = seconds_per_prompt_token
        self.seconds_per_token = seconds_per_token
        self.answer = answer or (lambda seen: f"Answer to: {seen.question}")
        self.requests: list[Seen] = []
        self.probes = 0
        self.probe_status = 200
        self.probe_hangs = False
        self._on_request = on_request
        self._script: deque[Behaviour] = deque()
        self._always = GOOD
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._ports: set[object] = set()

    @property
    def connections(self) -> int:
        """How many connections brought the requests for answers."""
        return len(self._ports)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def behave(self, *behaviours: Behaviour) -> None:
        """Script the next requests, one behaviour each."""
        self._script.extend(behaviours)

    def behave_always(self, behaviour: Behaviour) -> None:
        """Treat every unscripted request so from now on."""
        self._always = behaviour

    async def start(self) -> None:
        """Listen; after a `stop`, on the same port and with nothing cached."""
        self.slots = Slots(self.slot_count)
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/props", self._props)
        app.router.add_get("/slots", self._show_slots)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        if self.kind == "lm_studio":
            app.router.add_route("*", "/{path:.*}", self._unexpected)
        # Idle connections are closed after 5 s; a client that leaves stops its request.
        self._runner = web.AppRunner(
            app, keepalive_timeout=5, handler_cancellation=True, shutdown_timeout=0, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Reset every connection and listen no more."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        for handler in runner.server.connections if runner.server else ():
            if handler.transport is not None:
                handler.transport.abort()
        await runner.cleanup()

    async def until(self, met: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until a condition on `requests` holds; TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            while not met():
                self._changed.clear()
                await self._changed.wait()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _props(self, _: web.Request) -> web.Response:
        if self.kind != "llamacpp":
            return web.json_response({"error": "not found"}, status=404)
        return web.json_response({"total_slots": self.slot_count, "model_alias": self.model})

    async def _show_slots(self, _: web.Request) -> web.Response:
        running = {seen.slot: seen for seen in self.requests if seen.ended is None}
        shown = [
            {"id": i, "is_processing": i in running, "next_token": [{"n_decoded": running[i].sent_tokens}]}
            if i in running
            else {"id": i, "is_processing": False}
            for i in range(self.slot_count)
        ]
        return web.json_response(shown)

    async def _unexpected(self, request: web.Request) -> web.Response:
        return web.json_response({"error": f"Unexpected endpoint or method. ({request.method} {request.path})"})

    async def _list_models(self, request: web.Request) -> web.Response:
        self.probes += 1
        self._changed.set()
        if self.probe_hangs:
            await asyncio.Event().wait()
        if self.probe_status != 200 or not self._allowed(request):
            status = 401 if self.probe_status == 200 else self.probe_status
            return web.json_response({"error": {"message": "no list of models", "code": status}}, status=status)
        own: dict[str, Any] = {"object": "model", "owned_by": self.kind}
        if self.kind == "llamacpp":
            own["meta"] = {"n_ctx": self.context, "n_ctx_train": 4 * self.context}
        elif self.kind == "vllm":
            own["max_model_len"] = self.context
        return web.json_response({"object": "list", "data": [{"id": name, **own} for name in self.models]})

    def _allowed(self, request: web.Request) -> bool:
        return self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._ports.add(request.transport.get_extra_info("peername") if request.transport else None)
        behaviour = self._script.popleft() if self._script else self._always
        seen = Seen(request.path, dict(request.headers), body, *_parts(body), behaviour)
        self.requests.append(seen)
        self._changed.set()
        if self._on_request is not None:
            self._on_request(seen)
        try:
            response = await self._treat(request, seen)
            seen.ended = seen.ended or "answered"
        except (asyncio.CancelledError, ConnectionError):
            seen.ended = seen.ended or "disconnected"
            raise
        finally:
            self._changed.set()
        return response

    async def _treat(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        b = seen.behaviour
        await asyncio.sleep(b.headers_after)
        if b.reset:
            abort(request, seen)
        if b.status != 200 or b.body is not None:
            seen.ended = "failed"
            raw = b.body if isinstance(b.body, bytes) else json.dumps(b.body).encode()
            return web.Response(status=b.status, body=raw, content_type=b.content_type)
        if not self._allowed(request):
            error = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
            return web.json_response({"error": error}, status=401)
        tokens = tokenize(f"{seen.system}\n{seen.question}")
        seen.prompt_tokens = int(len(tokens) * b.prompt_share)
        if len(tokens) >= self.context:
            seen.ended = "failed"
            error = {
                "code": 400,
                "message": f"request ({len(tokens)} tokens) exceeds the available context size "
                f"({self.context} tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": len(tokens),
                "n_ctx": self.context,
            }
            return web.json_response({"error": error}, status=400)
        slot, seen.cached_tokens = await self.slots.take(tokens)
        try:
            return await self._stream(request, seen, slot)
        finally:
            self.slots.give_back(slot)

    async def _stream(self, request: web.Request, seen: Seen, slot: Slot) -> web.StreamResponse:
        b = seen.behaviour
        seen.slot = slot.index
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        out = Writer(response, seen, self.model)
        if b.role_first:
            await out.delta({"role": "assistant", "content": None})
        for _ in range(b.pings):
            await asyncio.sleep(b.first_token_after / (b.pings + 1))
            await out.raw(f":{b.line_end}{b.line_end}")
        await asyncio.sleep(b.first_token_after / (b.pings + 1))
        await asyncio.sleep(self.seconds_per_prompt_token * (seen.prompt_tokens - seen.cached_tokens))
        for thought in (b.thinking or "").split():
            await out.delta({"reasoning_content": f"{thought} "})
        reason = b.finish_reason
        words = (self.answer(seen) if b.answer is None else b.answer).split(" ")
        allowed = seen.body.get("max_tokens", self.context)
        if len(words) > allowed and b.ending is not Ending.ENDLESS:
            words, reason = words[:allowed], "length"
        for index, word in enumerate(words[: b.tokens]):
            await asyncio.sleep(self.seconds_per_token + b.per_token)
            text = word if index == 0 else f" {word}"
            if text:
                await out.delta({"content": text}, padding=b.padding if index == 0 else 0)
                seen.sent_tokens += 1
        await out.end(request, reason)
        return response


def _parts(body: dict[str, Any]) -> tuple[str, str]:
    """The system text and the question of a request; in a raw prompt the question is the last paragraph."""
    if "prompt" in body:
        system, _, question = body["prompt"].rpartition("\n\n")
        return system, question
    texts = {message["role"]: message["content"] for message in body["messages"]}
    return texts.get("system", ""), texts.get("user", "")
