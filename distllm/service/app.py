"""The application: rooms behind one guard, and what every response bears."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from distllm.service.desk import DESK, Desk
from distllm.service.guard import Guard
from distllm.service.problems import RefusedError, problem, refused_of
from distllm.service.room import Room

LARGEST_BODY = 32 * 2**20
"""Of a request that is held in memory whole; files that are sent have limits of their own."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_BEGUN = web.RequestKey("begun", web.StreamResponse)

logger = logging.getLogger("distllm.service")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(desk: Desk, guard: Guard, rooms: Sequence[Room]) -> web.Application:
    """An application of `rooms`. One with a longer prefix goes before one that it is in."""
    ranked = sorted(rooms, key=lambda room: -len(room.prefix))

    @web.middleware
    async def at_the_door(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        room = next((each for each in ranked if each.has(request.path)), None)
        try:
            guard.check(request, needs_no_token=room is not None and room.needs_no_token)
            if request.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise RefusedError(415, "the body is compressed: send it as it is")
            response = await handler(request)
        except Exception as error:
            if _BEGUN in request:
                return _broken_off(request, error)
            refused = refused_of(error)
            response = (problem if room is None else room.render)(refused)
        if request.body_exists and not request.content.at_eof():
            # What was not read of the body is not waited for.
            response.force_close()
        took = 1000 * (time.monotonic() - began)
        # Neither headers nor the query, which may hold what is nobody's business.
        logger.info("%s %s %d in %.0f ms", request.method, request.path, response.status, took)
        return response

    app = web.Application(middlewares=[at_the_door], client_max_size=LARGEST_BODY)
    app[DESK] = desk
    for room in rooms:
        app.add_routes(room.routes)
    app.on_response_prepare.append(_dress)
    return app


def _broken_off(request: web.Request, error: Exception) -> web.StreamResponse:
    """End a response that has begun so that nobody takes it for whole."""
    level = logging.INFO if isinstance(error, ConnectionError) else logging.ERROR
    logger.log(level, "%s was broken off: %s: %s", request.path, type(error).__name__, error)
    if request.transport is not None:
        request.transport.abort()
    return request[_BEGUN]


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    request[_BEGUN] = response
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    # Not what it is made of.
    response.headers["Server"] = "distllm"
