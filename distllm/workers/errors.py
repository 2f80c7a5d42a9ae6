"""The one table that turns what goes wrong at a server into an error class and a line for people.

    EXCEPTIONS   what the HTTP client and the socket raise
    ANSWERS      what a server says: HTTP status, and words of its error
    SIGNS        what an answer lacks, though nobody says that anything is wrong

The first row that fits counts.
"""

import asyncio
import json
import os
import re
import ssl
from enum import Enum
from typing import NamedTuple

import aiohttp

from distllm.domain.models import ErrorClass
from distllm.workers.sse import LineTooLongError

LONGEST_TEXT = 300
"""Characters of an error's line."""

DEEPEST = 8
"""How deep the words of an error may lie in its JSON."""

EXCERPT = 3000
"""Characters kept of a server's words until secrets are out; so that no half of one is left at the cut."""

SHORTEST_KEY = 16
"""Characters of a key that is looked for in answers: a shorter one is mostly a word, such as `ollama` or `EMPTY`."""

BUSY, BROKEN, INPUT = ErrorClass.BUSY, ErrorClass.BROKEN, ErrorClass.INPUT
REFUSED, SETUP, LOST = ErrorClass.REFUSED, ErrorClass.SETUP, ErrorClass.LOST


class ServerError(Exception):
    """Something went wrong at a server: its class, and one line of text. Never leaves an adapter."""

    def __init__(self, error_class: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.error_class = error_class
        self.text = text


class Raised(NamedTuple):
    """A row for exceptions: its class before the server's first byte, and after it."""

    kind: type[BaseException]
    unheard: ErrorClass
    heard: ErrorClass
    text: str


EXCEPTIONS = (
    Raised(aiohttp.ConnectionTimeoutError, REFUSED, REFUSED, "no connection within the connect timeout"),
    Raised(aiohttp.ClientConnectorDNSError, REFUSED, REFUSED, "its name is not known to DNS"),
    Raised(aiohttp.ClientConnectorCertificateError, SETUP, SETUP, "its certificate is not trusted"),
    Raised(aiohttp.ClientSSLError, SETUP, SETUP, "no TLS there; is the scheme right?"),
    Raised(aiohttp.ServerFingerprintMismatch, SETUP, SETUP, "its certificate is another one"),
    Raised(aiohttp.ClientConnectorError, REFUSED, REFUSED, "no connection"),
    Raised(aiohttp.ClientHttpProxyError, REFUSED, REFUSED, "the proxy refuses"),
    Raised(aiohttp.InvalidURL, SETUP, SETUP, "not a valid address"),
    Raised(aiohttp.NonHttpUrlClientError, SETUP, SETUP, "not an HTTP address"),
    Raised(aiohttp.RedirectClientError, SETUP, SETUP, "it redirects elsewhere"),
    Raised(aiohttp.TooManyRedirects, SETUP, SETUP, "it redirects in circles"),
    Raised(aiohttp.ServerTimeoutError, BROKEN, BROKEN, "the socket was silent for too long"),
    Raised(aiohttp.ServerConnectionError, LOST, LOST, "it closed the connection"),
    Raised(aiohttp.ClientConnectionError, LOST, LOST, "the connection was reset"),
    Raised(aiohttp.UploadAbortedError, LOST, LOST, "it stopped reading the request"),
    Raised(aiohttp.ClientPayloadError, LOST, LOST, "the answer broke off"),
    Raised(aiohttp.ClientResponseError, BROKEN, BROKEN, "its answer is not valid HTTP"),
    Raised(aiohttp.ClientError, BROKEN, BROKEN, "the request failed"),
    Raised(asyncio.IncompleteReadError, LOST, LOST, "the answer broke off"),
    Raised(LineTooLongError, BROKEN, BROKEN, "it sent a line without end"),
    Raised(ConnectionRefusedError, REFUSED, REFUSED, "no connection"),
    Raised(ConnectionError, LOST, LOST, "the connection was reset"),
    Raised(TimeoutError, BROKEN, BROKEN, "it took too long"),
    Raised(OSError, REFUSED, LOST, "the connection failed"),
    Raised(UnicodeError, SETUP, BROKEN, "not a valid host name"),
    Raised(Exception, BROKEN, BROKEN, "unexpected failure"),
)


class Said(NamedTuple):
    """A row for what a server says. None as a status stands for an error inside a stream."""

    error_class: ErrorClass
    statuses: frozenset[int | None] | None
    words: str = ""


IN_STREAM = frozenset({None})
CLIENT = frozenset(range(400, 500))
ANSWERS = (
    # llama.cpp's shared pool was full: the same prompt succeeds with fewer neighbours.
    Said(BUSY, None, r"context size has been exceeded"),
    # The runner behind the server: all that it was asked at once is told so.
    Said(LOST, None, r"process has terminated|process no longer running|has crashed"),
    Said(SETUP, frozenset({401, 402, 403, 407})),
    Said(BUSY, frozenset({429, 503})),
    Said(BUSY, IN_STREAM, r"loading model|unavailable_error|overloaded|server busy|too many requests"),
    Said(
        SETUP,
        CLIENT | IN_STREAM,
        r"model\b.{0,80}\bnot (be )?found|model_not_found|invalid model|unknown model|no models? loaded"
        r"|failed to load|model_load_failed|unknown identifier|does not support|api[ _]key|authentication"
        r"|unexpected endpoint",
    ),
    Said(
        INPUT,
        CLIENT | IN_STREAM,
        r"exceed_context|context[ _](size|length|window)|n_keep|n_ctx|tokens to keep|trying to keep"
        r"|input length|(prompt|input) is too long|too many tokens",
    ),
    Said(BROKEN, frozenset({408, 499})),
    Said(INPUT, frozenset({400, 413, 422})),
    Said(SETUP, CLIENT | frozenset(range(300, 400))),
    Said(BROKEN, None),
)


class Sign(Enum):
    """What tells that an answer is none: the class, and words with room for details."""

    NO_FIRST_TOKEN = (BROKEN, "no token within {seconds:.0f} s")
    SILENT = (BROKEN, "silent for {seconds:.0f} s in the middle of an answer")
    TOO_SLOW = (BROKEN, "no end of the answer within {seconds:.0f} s")
    NO_MARKER = (BROKEN, "the answer broke off: the stream ended without its end marker")
    NO_REASON = (BROKEN, "the stream ended without a finish reason")
    ODD_REASON = (BROKEN, "the answer ended with {said!r}")
    EMPTY = (BROKEN, "an empty answer")
    ONLY_THINKING = (BROKEN, "only reasoning and no answer within {tokens} tokens")
    ENDLESS = (BROKEN, "it goes on beyond the {tokens} tokens that it was allowed")
    NOT_JSON = (BROKEN, "it sent what is not JSON: {said}")
    TOO_MUCH = (BROKEN, "it sent more than {megabytes:.0f} MB where a list of its models was asked for")
    WEB_PAGE = (BROKEN, "it answers with a web page: {said}")
    SWALLOWED = (
        INPUT,
        "no text at all for a prompt of about {sent} tokens, of which its context window holds {window}",
    )
    UNKNOWN_FIELD = (INPUT, "its server has no {said}: leave that out, or have a server that has it")
    WRONG_MODEL = (SETUP, "{said!r} answers there instead of the model {asked!r}")
    NOT_RUNNING = (REFUSED, "it is not running")


class Translator:
    """Speaks for one server: every text names `address`, and none contains `secret`."""

    def __init__(self, address: str, secret: str | None = None) -> None:
        self._address = address
        self._secret = secret

    def exception(self, error: BaseException, *, heard: bool) -> ServerError:
        """Translate what was raised; `heard` tells whether the server had sent a byte."""
        row = next(row for row in EXCEPTIONS if isinstance(error, row.kind))
        return self._fault(row.heard if heard else row.unheard, f"{row.text} ({_detail(error)})")

    def status(self, status: int, body: bytes) -> ServerError:
        """Translate an HTTP answer that is not 200."""
        text = said(body.decode("utf-8", "replace"))
        return self._fault(_classify(status, text), f"HTTP {status}: {text or 'no text'}")

    def stream_error(self, payload: object) -> ServerError:
        """Translate an error that a server sent after saying 200: an object, or a string."""
        text = _words(payload)
        code = payload.get("code") if isinstance(payload, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else None
        return self._fault(_classify(status, text), f"error in the answer: {text or 'no text'}")

    def sign(self, sign: Sign, **details: object) -> ServerError:
        """Translate what was seen in an answer."""
        error_class, text = sign.value
        return self._fault(error_class, text.format(**details))

    def without_key(self, text: str) -> str:
        """What a server wrote, without the key that it was given: one may echo what it is sent."""
        key = self._secret
        return text.replace(key, "***") if key and len(key) >= SHORTEST_KEY else text

    def _fault(self, error_class: ErrorClass, text: str) -> ServerError:
        if self._secret:
            text = text.replace(self._secret, "***")
        return ServerError(error_class, shorten(f"{self._address}: {text}", LONGEST_TEXT))


def said(text: str, depth: int = 0) -> str:
    """Find the words for people in the body of an error: JSON of any usual shape, HTML, or plain text."""
    stripped = text.strip()
    if stripped.startswith(("{", "[", '"')):
        try:
            return _words(json.loads(stripped), depth)
        except (ValueError, RecursionError):
            return shorten(stripped, EXCERPT)
    if stripped.startswith("<"):
        title = re.search(r"<(title|h1)[^>]*>(.*?)</\1", stripped[:20_000], re.IGNORECASE | re.DOTALL)
        stripped = title.group(2) if title else re.sub(r"<[^>]*>", " ", stripped[:20_000])
    return shorten(stripped, EXCERPT)


def shorten(text: str, length: int) -> str:
    """Put `text` on one line of at most `length` characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * length]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _detail(error: BaseException) -> str:
    """What the system or the exception itself says, without the addresses that libraries put around it."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        if error.strerror:
            return error.strerror
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__


def _classify(status: int | None, text: str) -> ErrorClass:
    for row in ANSWERS:
        if row.statuses is not None and status not in row.statuses:
            continue
        if re.search(row.words, text, re.IGNORECASE):
            return row.error_class
    raise AssertionError("the last row fits everything")


def _words(payload: object, depth: int = 0) -> str:
    """The message of an error object; kinds and codes are added where the message lacks them."""
    if isinstance(payload, str):
        # Ollama wraps the JSON of the server behind it in a string.
        if depth < DEEPEST and payload.lstrip().startswith("{"):
            return said(payload, depth + 1)
        return shorten(payload, EXCERPT)
    for key in ("error", "message", "detail", "title"):
        if isinstance(payload, dict) and depth < DEEPEST and payload.get(key):
            text = _words(payload[key], depth + 1)
            kinds = [payload.get("type"), payload.get("code")]
            more = [kind for kind in kinds if isinstance(kind, str) and kind not in text]
            return f"{text} ({', '.join(more)})" if more else text
    try:
        return shorten(json.dumps(payload, default=str), EXCERPT)
    except RecursionError:
        return "what it says is nested too deeply to be read"
