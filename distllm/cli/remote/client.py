"""A client of a service: what it answers, or one line that says what is wrong and what to do."""

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from distllm.cli.commands.serve import PORT
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.text import shown

TOKEN = "DISTLLM_TOKEN"
TRIES = 3
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0
"""How long a service may read what it was sent before it says anything."""

LONGEST_DETAIL = 500

Record = dict[str, Any]


def server_url(given: str) -> str:
    """The address of a service: `http://studio:8470`, or `studio`. Raises UsageError for what is none."""
    whole = given if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given) else f"http://{given}"
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError:
        raise UsageError(f"--server: {given!r} is no address: write http://studio:{PORT}") from None
    if parts.username is not None or parts.password is not None:
        # Not repeated: it may be a password.
        raise UsageError(f"--server: the address has a user or a password in it: give the token as {TOKEN} instead")
    if (
        parts.scheme not in ("http", "https")
        or not re.fullmatch(r"[^\s/@]+", parts.hostname or "")
        or parts.query
        or parts.path.strip("/")
    ):
        raise UsageError(f"--server: {given!r} is no address: write http://studio:{PORT}")
    if whole != given and port is None:
        whole = f"http://{parts.netloc}:{PORT}"
    return whole.rstrip("/")


class Remote:
    """A service at an address. Used inside of `connected`."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str, **query: object) -> Record:
        """Ask for something below the API; what is None in the query is left out."""
        asked = {name: str(value) for name, value in query.items() if value is not None}
        return await self._ask("GET", path, lambda: {"params": asked})

    async def post(self, path: str, body: object = None) -> Record:
        """Have something done."""
        return await self._ask("POST", path, lambda: {} if body is None else {"json": body})

    async def send(self, path: str, form: Callable[[], aiohttp.FormData], headers: dict[str, str]) -> Record:
        """Send a form, again where the connection is lost: its headers tell that it is the same."""
        return await self._ask("POST", path, lambda: {"data": form(), "headers": headers}, TRIES)

    async def _ask(self, method: str, path: str, more: Callable[[], Record], tries: int = 1) -> Record:
        while True:
            tries -= 1
            try:
                url = f"{self.url}/api/v1{path}"
                async with self._session.request(method, url, allow_redirects=False, **more()) as response:
                    return self._understood(response.status, response.content_type, await response.read())
            except TimeoutError:
                raise DistllmError(f"{self.url} does not answer in time: try again later") from None
            except aiohttp.ClientError as error:
                if tries <= 0 or isinstance(error, aiohttp.ClientConnectorError):
                    raise self._unreachable(error) from None

    def _unreachable(self, error: aiohttp.ClientError) -> DistllmError:
        inner = getattr(error, "os_error", error)
        number = getattr(inner, "errno", None)
        # The name lookup's numbers are below zero, and its words its own.
        reason = os.strerror(number) if number and number > 0 else getattr(inner, "strerror", None) or str(error)
        reason = shown(reason or type(error).__name__).lower()
        return DistllmError(f"nobody answers at {self.url}: {reason}; is `distllm serve` running there?")

    def _understood(self, status: int, kind: str, raw: bytes) -> Record:
        try:
            told = json.loads(raw)
        except ValueError:
            told = None
        if not isinstance(told, dict) or (status >= 300 and kind != "application/problem+json"):
            raise DistllmError(f"{self.url} is no service of distllm: it answers {status} with {kind}")
        if status < 300:
            return told
        detail = shown(str(told.get("detail")))[:LONGEST_DETAIL]
        if status == 401:
            where = "is not the one that it wants" if os.environ.get(TOKEN) else "is not set"
            raise UsageError(f"{self.url} wants its token, and {TOKEN} {where}: it stands in the file …-token there")
        if status in (404, 413, 422):
            raise UsageError(detail)
        raise DistllmError(detail)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Remote]:
    """A client of the service at `url`, with the token of the environment."""
    token = os.environ.get(TOKEN, "")
    if token and not (token.isascii() and token.isprintable()):
        raise UsageError(f"{TOKEN} holds no token: it must be letters and digits")
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield Remote(url, session)
