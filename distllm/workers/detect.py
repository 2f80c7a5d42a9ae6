"""Telling kinds of server apart, by what they answer and never by its status."""

import asyncio
import json

import aiohttp

from distllm.domain.models import WorkerType
from distllm.workers.exchange import read_some
from distllm.workers.inquiry import LONGEST_LIST
from distllm.workers.told import fields, objects


async def detect(
    host: str,
    port: int,
    session: aiohttp.ClientSession,
    timeout: float = 2.0,  # noqa: ASYNC109 - the promise is to return, not to raise
    *,
    scheme: str = "http",
    api_key: str | None = None,
) -> WorkerType | None:
    """The kind of the server at an address, None if none answers as one within `timeout` seconds.

    A server that wants a key, and is not given it, is recognised where its refusal is in a form of its own.
    """
    place = f"[{host}]" if ":" in host else host
    base = f"{scheme}://{place}:{port}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def body(path: str) -> object:
        try:
            async with (
                asyncio.timeout(timeout),
                session.get(f"{base}{path}", headers=headers, allow_redirects=False) as response,
            ):
                text = await read_some(response, LONGEST_LIST)
                return json.loads(text) if len(text) < LONGEST_LIST else None
        except (OSError, ValueError, RecursionError, aiohttp.ClientError):
            return None

    return recognise(*await asyncio.gather(body("/api/version"), body("/api/v1/models"), body("/v1/models")))


def recognise(version: object, own_models: object, models: object) -> WorkerType | None:
    """The kind whose answers to `/api/version`, `/api/v1/models` and `/v1/models` these are."""
    if isinstance(fields(version).get("version"), str):
        return WorkerType.OLLAMA
    if _is_lm_studio(own_models):
        return WorkerType.LM_STUDIO
    if isinstance(fields(models).get("data"), list):
        return WorkerType.OPENAI
    refusal = fields(fields(models).get("error"))
    wants_key = any(refusal.get(key) in ("authentication_error", "invalid_api_key") for key in ("type", "code"))
    return WorkerType.OPENAI if wants_key else None


def _is_lm_studio(own_models: object) -> bool:
    """It has a list of its own, says of paths that it lacks what nobody else says, or wants its key."""
    told = fields(own_models)
    listed, error = told.get("models"), told.get("error")
    if isinstance(listed, list):
        return len(objects(listed)) == len(listed) and all("key" in each for each in objects(listed))
    if isinstance(error, str):
        return error.startswith("Unexpected endpoint or method")
    return (fields(error).get("type"), fields(error).get("code")) == ("invalid_request", "invalid_api_key")
