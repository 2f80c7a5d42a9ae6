"""Asking a server what it has: short questions, answered in JSON."""

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace

import aiohttp

from distllm.domain.models import Health
from distllm.workers.errors import LONGEST_TEXT, ServerError, Sign, Translator, said, shorten
from distllm.workers.exchange import LONGEST_NAME, as_file, read_some

_DECODER = json.JSONDecoder()

LONGEST_LIST = 4 * 2**20
"""Bytes read of a list of models."""

MOST_OFFERS = 1000
"""Models of one server that are taken in; of one that has more, name those that are meant in its `model`."""

MOST_SLOTS = 1024
"""Slots that a server is believed to have."""


class Inquirer:
    """Asks one server, at `base` (a URL without a path), and speaks of it as its translator does."""

    def __init__(
        self, session: aiohttp.ClientSession, base: str, headers: Mapping[str, str], translator: Translator
    ) -> None:
        self._session = session
        self._base = base
        self._headers = headers
        self._translator = translator

    async def ask(self, path: str, post: Mapping[str, object] | None = None) -> object:
        """Get a JSON document, or post for one. Raises ServerError, and what the HTTP client raises."""
        method = "GET" if post is None else "POST"
        async with self._session.request(
            method, f"{self._base}{path}", headers=self._headers, json=post, allow_redirects=False
        ) as response:
            body = await read_some(response, LONGEST_LIST)
            if response.status != 200:
                raise self._translator.status(response.status, body)
        if len(body) >= LONGEST_LIST:
            raise self._translator.sign(Sign.TOO_MUCH, megabytes=LONGEST_LIST / 1e6)
        found = read_json(body, self._translator)
        if isinstance(found, dict) and found.get("error"):
            raise self._translator.stream_error(found["error"])
        return found

    async def ask_if_told(self, path: str, post: Mapping[str, object] | None = None) -> object:
        """As `ask`; None where that fails."""
        try:
            return await self.ask(path, post)
        except (ServerError, aiohttp.ClientError, OSError):
            return None

    async def ask_until(self, end: float, path: str, post: Mapping[str, object] | None = None) -> object:
        """As `ask_if_told`; None also where the loop's clock passes `end` before the answer."""
        if asyncio.get_running_loop().time() >= end:
            return None
        try:
            async with asyncio.timeout_at(end):
                return await self.ask_if_told(path, post)
        except TimeoutError:
            return None

    async def ask_in_time(self, seconds: float, path: str, body: bytes) -> object:
        """Post a JSON document that is written already; None where that fails, or takes longer than `seconds`."""
        headers = {**self._headers, "Content-Type": "application/json"}
        url = f"{self._base}{path}"
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.post(url, headers=headers, data=as_file(body), allow_redirects=False) as response,
            ):
                found = await read_some(response, LONGEST_LIST)
                told = response.status == 200 and len(found) < LONGEST_LIST
                return read_json(found, self._translator) if told else None
        except Exception:
            return None


async def examine(look: Awaitable[Health], seconds: float, address: str, translator: Translator) -> Health:
    """What a look at a server finds within `seconds`; whatever goes wrong means that it is not healthy."""
    try:
        async with asyncio.timeout(seconds):
            return _sound(await look, translator)
    except ServerError as fault:
        return Health(False, error=fault.text)
    except TimeoutError:
        return Health(False, error=f"{address}: no answer within {seconds:g} s")
    except Exception as error:
        return Health(False, error=translator.exception(error, heard=False).text)


def _sound(health: Health, translator: Translator) -> Health:
    """What can be believed of a health, and kept: a server may tell anything."""
    offers = tuple(
        replace(offer, digest=offer.digest if _is_name(offer.digest) else None)
        for offer in health.offers[:MOST_OFFERS]
        if _is_name(offer.model)
    )
    slots = None if health.slots is None else min(health.slots, MOST_SLOTS)
    error = None if health.error is None else shorten(translator.without_key(health.error), LONGEST_TEXT)
    return replace(health, offers=offers, slots=slots, error=error)


def _is_name(text: str | None) -> bool:
    """Whether a database can hold it."""
    return text is not None and len(text) <= LONGEST_NAME and text == _kept(text)


def _kept(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def no_such_model(address: str, wanted: str, names: Iterable[str]) -> str:
    """The line for a server that lacks the model it is configured for."""
    has = list(names)
    listed = ", ".join(has[:8]) + (f" and {len(has) - 8} more" if len(has) > 8 else "")
    return f"{address}: has no model {wanted!r}; it has {listed or 'none'}"


def read_json(body: bytes, translator: Translator) -> object:
    """Read what ought to be JSON. Raises ServerError."""
    text = body.decode("utf-8", "replace").strip()
    try:
        # What `json.loads` does, in half the time: this is done for each token.
        found, end = _DECODER.raw_decode(text)
        if end == len(text):
            return found
    except (ValueError, RecursionError):
        pass
    sign = Sign.WEB_PAGE if text.startswith("<") else Sign.NOT_JSON
    raise translator.sign(sign, said=said(text[:20_000]) or "nothing")
