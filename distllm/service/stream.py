"""`GET /api/v1/events`: what happens, as server-sent events."""

import asyncio
from contextlib import suppress

from aiohttp import web

from distllm.service.desk import DESK
from distllm.service.endpoint import has_left
from distllm.service.hub import Listener, TooManyError
from distllm.service.problems import RefusedError

HEARTBEAT_SECONDS = 15.0
"""How long nothing may be said before a comment is: proxies close what is silent."""

LEFT_EVERY_SECONDS = 0.5
"""How often it is looked whether a client of which nothing is heard is still there: only so many may listen."""

SLOWEST_SECONDS = 10.0
"""How long a listener may take to make room for the events that wait for it."""

GATHERED_SECONDS = 0.25
"""How long events are gathered before they are written: work does not wait for each of them to be told."""


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Tell events until the client leaves, is too slow, or the service ends."""
    if request.method == "HEAD":
        return web.Response(content_type="text/event-stream")
    try:
        with request.app[DESK].hub.listening(request.headers.get("Last-Event-ID")) as listener:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
            )
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await _tell_all(request, response, listener)
            if not listener.over and request.transport is not None:
                # What the client has not read is thrown away, not kept for it.
                request.transport.abort()
            return response
    except TooManyError:
        raise RefusedError(503, "too many listen already: try again later", Retry_After="30") from None


async def _tell_all(request: web.Request, response: web.StreamResponse, listener: Listener) -> None:
    await _write(response, b"retry: 2000\n\n")
    silent = 0.0
    while not has_left(request):
        events = await listener.next(LEFT_EVERY_SECONDS)
        if not events and listener.over:
            return
        silent = 0.0 if events else silent + LEFT_EVERY_SECONDS
        if silent >= HEARTBEAT_SECONDS:
            events, silent = b": still here\n\n", 0.0
        if events:
            await _write(response, events)
            await asyncio.sleep(0 if listener.over else GATHERED_SECONDS)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(SLOWEST_SECONDS):
        await response.write(data)
