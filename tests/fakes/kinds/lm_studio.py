"""LM Studio: OpenAI's API, lists of its own that tell what is loaded, and 200 to any path."""

import asyncio
from typing import Any

from aiohttp import web

from tests.fakes.behaviour import Caching
from tests.fakes.kinds.kind import error
from tests.fakes.kinds.openai import OpenAI
from tests.fakes.stream import EventWriter, Seen, Writer


class LMStudio(OpenAI):
    """Before 0.4 it has only `/api/v0`, and answers to an unknown name with what is loaded.

    While `server.jit` holds, every downloaded model is listed, and loaded when it is asked for.
    """

    def add_own_routes(self, app: web.Application) -> None:
        app.router.add_get("/api/v0/models", self._list_v0)
        if not self._old:
            app.router.add_get("/api/v1/models", self._list_v1)

    @property
    def _old(self) -> bool:
        return (self.server.version or "0.4").startswith("0.3")

    def wrong_key(self) -> web.Response:
        text = "An LM Studio API token is required to make requests to this server"
        return error(401, {"message": text, "type": "invalid_request", "code": "invalid_api_key", "param": None})

    async def admit(self, request: web.Request, seen: Seen, tokens: list[str]) -> web.StreamResponse | None:
        server = self.server
        asked = seen.body["model"]
        if asked in server.loaded:
            seen.model = asked
        elif self._old and len(server.loaded) == 1:
            seen.model = server.loaded[0]
        elif not server.jit and not server.loaded:
            return _failed(seen, "No models loaded. Please load a model in the developer page or use `lms load`.")
        elif not server.jit or asked not in server.models:
            text = f"Invalid model identifier {asked!r}. Please specify a valid downloaded model"
            kind = {"type": "invalid_request_error", "param": "model", "code": "model_not_found"}
            return _failed(seen, {"message": text, **kind})
        else:
            await asyncio.sleep(server.seconds_to_load)
            server.loaded = (*server.loaded, asked)
            server.loads.append((asked, server.context))
            seen.model = asked
        read = server.read_of(seen, len(tokens), server.context)
        if read is not None:
            seen.prompt_tokens = read
            return None
        return await self._overflow(request, seen, len(tokens))

    def writer(self, request: web.Request, seen: Seen) -> Writer:
        asked_for_usage = (seen.body.get("stream_options") or {}).get("include_usage") is True
        return _Writer(request, seen, seen.model or self.server.model, usage=asked_for_usage)

    def entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "owned_by": "organization_owner"}

    def listed(self) -> tuple[str, ...]:
        embedding = ("text-embedding-nomic-embed-text-v1.5",)
        return (*self.server.models, *embedding) if self.server.jit else self.server.loaded

    async def unknown_path(self, request: web.Request) -> web.Response:
        return error(200, f"Unexpected endpoint or method. ({request.method} {request.path})")

    async def _overflow(self, request: web.Request, seen: Seen, tokens: int) -> web.StreamResponse:
        text = (
            "The number of tokens to keep from the initial prompt is greater than the context length "
            f"(n_keep: {tokens}>= n_ctx: {self.server.context}). Try to load the model with a larger context length"
        )
        seen.ended = "failed"
        if not seen.body.get("stream"):
            return error(400, text)
        out = self.writer(request, seen)
        await out.open()
        if self.server.overflow_is_told:
            await out.raw("event: error\n")
            await out.line({"error": {"message": text}})
        return out.response

    async def _list_v1(self, request: web.Request) -> web.Response:
        if not self.server.allowed(request):
            return self.wrong_key()
        told = self.server.told_context
        config = {"eval_batch_size": 512, "parallel": self.server.slot_count}
        config |= {"context_length": told} if told else {}
        models: list[dict[str, Any]] = [
            {
                "type": "llm",
                "key": name,
                "display_name": name.title(),
                "format": "gguf",
                "max_context_length": 4 * self.server.context,
                "loaded_instances": [
                    {"id": loaded, "config": config}
                    for loaded in self.server.loaded
                    if loaded == name or loaded.startswith(f"{name}:")
                ],
            }
            for name in self.server.models
        ]
        models.append({"type": "embedding", "key": "text-embedding-nomic-embed-text-v1.5", "loaded_instances": []})
        return web.json_response({"models": models})

    async def _list_v0(self, request: web.Request) -> web.Response:
        if not self.server.allowed(request):
            return self.wrong_key()
        data: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "type": "llm",
                "state": "loaded" if name in self.server.loaded else "not-loaded",
                "max_context_length": 4 * self.server.context,
            }
            | ({"loaded_context_length": self.server.told_context} if name in self.server.loaded else {})
            for name in self.server.models
        ]
        embedding = {"id": "text-embedding-nomic-embed-text-v1.5", "type": "embeddings", "state": "not-loaded"}
        return web.json_response({"object": "list", "data": [*data, embedding]})


class _Writer(EventWriter):
    """Counts only where that is asked for, and never what was cached."""

    def __init__(self, request: web.Request, seen: Seen, model: str, *, usage: bool) -> None:
        super().__init__(request, seen, model, timed=False)
        self._usage_wanted = usage

    def costs(self) -> dict[str, object]:
        if not self._usage_wanted:
            return {}
        read, written = self._seen.prompt_tokens, self._seen.sent_tokens
        if self._seen.caching is Caching.LEFT_OUT:
            read -= min(self._seen.cached_tokens, read)
        return {"usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}}


def _failed(seen: Seen, payload: object) -> web.Response:
    seen.ended = "failed"
    return error(400, payload)
