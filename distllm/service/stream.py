"""`GET /api/v1/events`: what happens, as server-sent events."""

import asyncio
from contextlib import suppress

from aiohttp import web

from distllm.service.desk import DESK
from distllm.service.hub import Listener, Told, TooManyError
from distllm.service.problems import RefusedError

HEARTBEAT_SECONDS = 15.0
"""How long nothing may be said before a comment is: proxies close what is silent."""

SLOWEST_SECONDS = 10.0
"""How long a listener may take to make room for the events that wait for it."""


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
            telling = asyncio.create_task(_tell_all(response, listener))
            listener.on_lost = telling.cancel
            try:
                await asyncio.wait({telling})
            finally:
                telling.cancel()
            with suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
                await telling
            if not listener.over and request.transport is not None:
                # What the client has not read is thrown away, not kept for it.
                request.transport.abort()
            return response
    except TooManyError:
        raise RefusedError(503, "too many listen already: try again later", Retry_After="30") from None


async def _tell_all(response: web.StreamResponse, listener: Listener) -> None:
    await _write(response, b"retry: 2000\n\n")
    while not listener.lost:
        told = await listener.next(HEARTBEAT_SECONDS)
        if told:
            await _write(response, b"".join(map(_event, told)))
        elif listener.over:
            return
        elif not listener.lost:
            await _write(response, b": still here\n\n")


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(SLOWEST_SECONDS):
        await response.write(data)


def _event(told: Told) -> bytes:
    # JSON has no line ends of its own.
    return f"id: {told.id}\nevent: {told.kind}\ndata: {told.data}\n\n".encode()
