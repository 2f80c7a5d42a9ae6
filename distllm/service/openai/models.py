"""`/v1/models`: what the fleet can be asked for now."""

from typing import Any

from aiohttp import web

from distllm.service.endpoint import desk_of
from distllm.service.openai.faults import FaultError


async def list_models(request: web.Request) -> web.Response:
    """All models, each with the largest window that a worker has for it, where one tells it."""
    found = await desk_of(request).models()
    return web.json_response({"object": "list", "data": [_facts(name, found[name]) for name in sorted(found)]})


async def show_model(request: web.Request) -> web.Response:
    """One model."""
    name, found = request.match_info["model"], await desk_of(request).models()
    if name not in found:
        raise FaultError(
            404, f"no worker has the model {name[:100]}: GET /v1/models lists those there are", code="model_not_found"
        )
    return web.json_response(_facts(name, found[name]))


def _facts(name: str, window: int | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "distllm", "context_length": window}
