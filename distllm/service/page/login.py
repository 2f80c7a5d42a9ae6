"""Signing in: the token is shown once, and a cookie stands for it from then on."""

import asyncio
import hmac
from urllib.parse import parse_qs

from aiohttp import web

from distllm.service import session
from distllm.service.page.rendering import elsewhere, page
from distllm.service.problems import RefusedError

WRONG_SECONDS = 1.0
"""How long the next one waits after a wrong token."""

MOST_WAITING = 10
LONGEST_FORM = 4_096


class Login:
    """Looks at tokens one after another, so that guessing takes as long as it is wrong. None wants no token."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def show(self, request: web.Request) -> web.Response:
        """The form, or where to go without it."""
        if self._token is None or session.is_of(request, self._token):
            return elsewhere("/")
        return page(request, "login.html", problem=None)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session with the right token; the form again with another."""
        if self._token is None:
            return elsewhere("/")
        given = await _token_of(request)
        if self._waiting >= MOST_WAITING:
            raise RefusedError(429, "too many try to sign in: try again in a while", Retry_After="30")
        self._waiting += 1
        try:
            async with self._turn:
                right = hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())
                if not right:
                    await asyncio.sleep(WRONG_SECONDS)
        finally:
            self._waiting -= 1
        if not right:
            return page(request, "login.html", 403, problem="this is not the token of this service")
        response = elsewhere("/")
        session.begin(response, self._token)
        return response

    async def sign_out(self, _: web.Request) -> web.Response:
        """End the session of a browser."""
        response = elsewhere("/login")
        if self._token is not None:
            session.end(response, self._token)
        return response


async def _token_of(request: web.Request) -> str:
    # Whoever sends this may be anybody: no more is read than a token has.
    if request.content_length is None or request.content_length > LONGEST_FORM:
        raise RefusedError(413, "the form is longer than a token: send the token alone")
    return parse_qs((await request.read()).decode("utf-8", "replace")).get("token", [""])[0].strip()
