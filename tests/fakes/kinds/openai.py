"""llama.cpp's server, vLLM, and a plain server that speaks OpenAI's API and tells no more than it must."""

import asyncio
from typing import Any

from aiohttp import web

from tests.fakes.kinds.kind import Kind, error
from tests.fakes.slots import tokenize
from tests.fakes.stream import EventWriter, Seen, Writer


class OpenAI(Kind):
    """`server.kind` says whom it resembles in its list of models."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/chat/completions", self.server.complete)
        app.router.add_post("/v1/completions", self.server.complete)
        self.add_own_routes(app)
        app.router.add_route("*", "/{path:.*}", self.unknown_path)

    def add_own_routes(self, app: web.Application) -> None:
        """Add what OpenAI's API does not have."""
        app.router.add_get("/health", self._health)
        if self.server.kind == "llamacpp":
            app.router.add_get("/props", self._props)
            app.router.add_get("/slots", self._slots)
            if self.server.tokenizes:
                app.router.add_post("/tokenize", self._tokenize)
                app.router.add_post("/v1/chat/completions/input_tokens", self._count)

    def wrong_key(self) -> web.Response:
        return error(401, {"message": "Invalid API Key", "type": "authentication_error", "code": 401})

    async def admit(self, request: web.Request, seen: Seen, tokens: list[str]) -> web.StreamResponse | None:
        read = self.server.read_of(seen, len(tokens), self.server.context)
        if read is not None:
            seen.prompt_tokens = read
            return None
        seen.ended = "failed"
        return error(400, too_long(len(tokens), self.server.context))

    def writer(self, request: web.Request, seen: Seen) -> Writer:
        return EventWriter(request, seen, self.server.model, timed=self.server.kind == "llamacpp")

    def room(self, seen: Seen) -> int:
        return int(seen.body.get("max_tokens", self.server.context))

    def entry(self, name: str) -> dict[str, Any]:
        """One model in the list."""
        own: dict[str, Any] = {"id": name, "object": "model", "owned_by": self.server.kind}
        told = self.server.told_context
        if self.server.kind == "llamacpp":
            own["meta"] = {"n_ctx_train": 4 * self.server.context} | ({"n_ctx": told} if told else {})
        elif self.server.kind == "vllm" and told:
            own["max_model_len"] = told
        return own

    def listed(self) -> tuple[str, ...]:
        """The models in the list."""
        return self.server.models

    async def list_models(self, request: web.Request) -> web.Response:
        refused = await self.server.probed(request)
        return refused or web.json_response({"object": "list", "data": [self.entry(name) for name in self.listed()]})

    async def unknown_path(self, request: web.Request) -> web.Response:
        if self.server.kind == "llamacpp":
            return error(404, {"message": "File Not Found", "type": "not_found_error", "code": 404})
        return web.json_response({"detail": "Not Found"}, status=404)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _props(self, _: web.Request) -> web.Response:
        return web.json_response({"total_slots": self.server.slot_count, "model_alias": self.server.model})

    async def _tokenize(self, request: web.Request) -> web.Response:
        if not self.server.allowed(request):
            return self.wrong_key()
        tokens = tokenize((await request.json())["content"])
        return web.json_response({"tokens": list(range(len(tokens)))})

    async def _count(self, request: web.Request) -> web.Response:
        self.server.counts += 1
        if not self.server.allowed(request):
            return self.wrong_key()
        text = "\n".join(message["content"] for message in (await request.json())["messages"])
        return web.json_response({"object": "response.input_tokens", "input_tokens": len(tokenize(text))})

    async def _slots(self, _: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.json_response(self.server.show_slots())


def too_long(tokens: int, context: int) -> dict[str, object]:
    """What llama.cpp says of a prompt that its window does not hold."""
    return {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size "
        f"({context} tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
