"""Ollama: its own API in lines of JSON, models that are loaded when they are asked for, and prompts cut in silence."""

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.fakes.behaviour import Caching
from tests.fakes.kinds.kind import Kind, error
from tests.fakes.kinds.openai import too_long
from tests.fakes.slots import Slots, tokenize
from tests.fakes.stream import LineWriter, Seen, Writer

NOT_FOUND_SHAPE = "model '{}' not found"


class Ollama(Kind):
    """Loads a model with the `num_ctx` and `shift` that a request names, else with its own; others reload it.

    `server.context` is its own window; `server.loaded` may name models that are loaded from the start.
    """

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self._runners: dict[str, tuple[int, bool]] = dict.fromkeys(server.loaded, (server.context, True))
        self._loading = asyncio.Lock()

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/ps", self._ps)
        app.router.add_post("/api/show", self._show)
        app.router.add_post("/api/chat", self.server.complete)
        app.router.add_post("/api/generate", self.server.complete)
        app.router.add_get("/v1/models", self._openai_list)

    def wrong_key(self) -> web.Response:
        # Only a proxy before it asks for a key.
        return web.Response(status=401, text="<h1>401 Authorization Required</h1>", content_type="text/html")

    def digest(self, name: str) -> str:
        """The hash of a model's manifest."""
        return f"{sum(map(ord, name)):064x}"

    async def admit(self, request: web.Request, seen: Seen, tokens: list[str]) -> web.StreamResponse | None:
        body, name = seen.body, self._full(seen.body["model"])
        if name is None:
            seen.ended = "failed"
            return error(404, NOT_FOUND_SHAPE.format(seen.body["model"]))
        if body.get("think") is True and self.server.thinks is None:
            seen.ended = "failed"
            return error(400, f'"{body["model"]}" does not support thinking')
        loads = len(self.server.loads)
        window = await self._load(name, body)
        seen.load = self.server.seconds_to_load if len(self.server.loads) > loads else 0.0
        seen.model, seen.window = body["model"], window
        if not body.get("messages") and not body.get("prompt"):
            seen.ended = "answered"
            line = {"model": body["model"], "done": True, "done_reason": "load"}
            return web.json_response(line | ({"response": ""} if seen.raw else {"message": {}}))
        seen.templated = seen.path == "/api/chat" or not body.get("raw")
        read = self._fit(seen, len(tokens), window)
        seen.prompt_tokens = int(read * seen.behaviour.prompt_share)
        if self.server.cuts is not None:
            # Who knows the field that forbids it?
            seen.prompt_tokens = self.server.read_of(seen, len(tokens), window) or 0
        elif read >= window:
            seen.ended = "failed"
            # What llama-server says, as a string.
            return error(400, json.dumps({"error": too_long(read, window)}))
        return None

    def writer(self, request: web.Request, seen: Seen) -> Writer:
        if self.server.version == "0.30.0":
            seen.caching = Caching.LEFT_OUT
        return LineWriter(request, seen)

    def room(self, seen: Seen) -> int:
        options = seen.body.get("options") or {}
        room = int(options.get("num_predict", -1))
        if room < 0:
            room = 10 * seen.window
        return (
            room
            if self.server.cuts or seen.body.get("shift") is not False
            else min(room, seen.window - seen.prompt_tokens)
        )

    def thoughts(self, seen: Seen) -> str:
        thinks = self.server.thinks if seen.body.get("think") is not False and seen.templated else None
        return seen.behaviour.thinking or thinks or ""

    def answered(self, seen: Seen) -> None:
        if seen.body.get("keep_alive") == 0 and seen.model:
            self._runners.pop(self._full(seen.model) or "", None)

    def _full(self, asked: str) -> str | None:
        """The full name of a model that it has."""
        return next((name for name in self.server.models if name in (asked, f"{asked}:latest")), None)

    async def _load(self, name: str, body: dict[str, Any]) -> int:
        """Have the model loaded as the request wants it; return its window. A client that leaves aborts it."""
        server = self.server
        window = int((body.get("options") or {}).get("num_ctx") or server.context)
        if server.told_context not in (None, server.context):
            # It says that it has what it was asked for.
            window = server.context
        wanted = min(window, 4 * server.context), body.get("shift") is not False
        async with self._loading:
            if self._runners.get(name) != wanted:
                self._runners.pop(name, None)
                try:
                    await asyncio.sleep(server.seconds_to_load)
                except asyncio.CancelledError:
                    server.aborted_loads += 1
                    raise
                self._runners[name] = wanted
                server.loads.append((name, wanted[0]))
                server.slots = Slots(server.slot_count)
            return wanted[0]

    def _fit(self, seen: Seen, tokens: int, window: int) -> int:
        """How much of a prompt is read."""
        if tokens < window or seen.body.get("truncate") is False:
            return tokens
        messages = seen.body.get("messages") or []
        middle = sum(len(tokenize(m["content"])) for m in messages[:-1] if m["role"] != "system")
        if middle and tokens - middle < window:
            return tokens - middle
        return window // 2 + 2 if self.server.renders or not messages else tokens

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.server.version})

    async def _tags(self, request: web.Request) -> web.Response:
        refused = await self.server.probed(request)
        return refused or web.json_response({"models": [self._entry(name) for name in self.server.models]})

    def _entry(self, name: str) -> dict[str, Any]:
        remote = {"remote_host": "https://ollama.com:443", "remote_model": name} if name.endswith("-cloud") else {}
        details = {"format": "gguf", "family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_K_M"}
        return {"name": name, "model": name, "size": 1, "digest": self.digest(name), "details": details, **remote}

    async def _ps(self, _: web.Request) -> web.Response:
        if self.server.ps_hangs:
            await asyncio.Event().wait()
        loaded = [
            {**self._entry(name), "expires_at": "2026-01-01T00:00:00Z", **self._window_told(window)}
            for name, (window, _) in self._runners.items()
        ]
        return web.json_response({"models": loaded})

    def _window_told(self, window: int) -> dict[str, int]:
        told = self.server.told_context
        if told is None:
            return {}
        return {"context_length": window if told == self.server.context else told}

    async def _show(self, request: web.Request) -> web.Response:
        self.server.shown += 1
        name = self._full((await request.json())["model"])
        if name is None:
            return error(404, "model not found")
        if name.startswith("nomic-embed"):
            info: dict[str, Any] = {"general.architecture": "bert", "bert.context_length": 2048}
            return web.json_response({"model_info": info, "capabilities": ["embedding"]})
        info = {"general.architecture": "llama", "llama.context_length": 4 * self.server.context}
        return web.json_response({"model_info": info, "capabilities": ["completion"]})

    async def _openai_list(self, request: web.Request) -> web.Response:
        refused = await self.server.probed(request)
        data = [{"id": name, "object": "model", "owned_by": "library"} for name in self.server.models]
        return refused or web.json_response({"object": "list", "data": data})
