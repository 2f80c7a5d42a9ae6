"""The room of OpenAI's API."""

from aiohttp import web

from distllm.service.openai import batches, chat, files, models
from distllm.service.openai.faults import openai_error
from distllm.service.openai.wishes import ENDPOINTS
from distllm.service.room import Room

PREFIX = "/v1"


def openai_room() -> Room:
    """OpenAI's API, below /v1."""
    routes = [
        web.post("/v1/files", files.create_file),
        web.get("/v1/files", files.list_files),
        web.get("/v1/files/{file}", files.show_file),
        web.get("/v1/files/{file}/content", files.show_content),
        web.delete("/v1/files/{file}", files.remove_file),
        web.post("/v1/batches", batches.make_batch),
        web.get("/v1/batches", batches.list_batches),
        web.get("/v1/batches/{batch}", batches.show_batch),
        web.post("/v1/batches/{batch}/cancel", batches.stop_batch),
        web.get("/v1/models", models.list_models),
        web.get("/v1/models/{model:.+}", models.show_model),
        *(web.post(endpoint, chat.answer) for endpoint in ENDPOINTS),
    ]
    return Room(PREFIX, routes, render=openai_error)
