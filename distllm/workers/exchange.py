"""One request and its streamed answer: time limits, bounds, and what became of it.

What servers have in common is here; what one says differently, its adapter translates into `Piece`s.
"""

import asyncio
import io
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields, replace
from typing import NamedTuple, Protocol

import aiohttp

from distllm.domain.models import Call, Limits, Outcome, Usage
from distllm.workers.deadline import Deadline
from distllm.workers.errors import ServerError, Sign, Translator

CHARACTERS_PER_TOKEN = 64
"""More than any tokenizer makes of one token on average; an answer beyond it ignores its token limit."""

TIMES_ALLOWED = 2
"""Some servers write a token or a draft more than `max_tokens`, thinking included; a count beyond this is none."""

BYTES_PER_TOKEN = 2**14
"""More than any server puts around one token; what it sends before and after all of them may have `BYTES_AROUND`."""

BYTES_AROUND = 2**23

FEWEST_ARRIVALS = 4
"""An answer that comes at fewer times tells no speed: a proxy may have held it back."""

LARGE_BODY = 2**20
"""Bytes of a request that aiohttp wants as a file; it warns of more."""

LONGEST_ERROR = 2**16
"""Bytes read of the body of an HTTP error."""

LONGEST_NAME = 500
"""Characters of a model's name; what is longer is none."""


class Request(NamedTuple):
    """What to post, and where."""

    url: str
    headers: dict[str, str]
    body: bytes


class Piece(NamedTuple):
    """What one event of a stream says; `ended` is the server's own mark that the answer is whole.

    `finish_reason` is already one of distllm's (`stop` or `length`).
    """

    text: str = ""
    thinking: str = ""
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    ended: bool = False


class Parser(Protocol):
    """An adapter's part, a new one for each answer: chunks of bytes in, pieces out.

    Raises ServerError for what the server tells. What it gives for a chunk is taken before the next one is fed.
    """

    def feed(self, chunk: bytes) -> Iterable[Piece]:
        """What this chunk completes."""

    def end(self) -> Iterable[Piece]:
        """What was left when the stream ended."""


UNTOLD = Usage()


class Answer:
    """An answer as it comes in."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._room = CHARACTERS_PER_TOKEN * (call.max_tokens + CHARACTERS_PER_TOKEN)
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.usage = UNTOLD
        self.first_token: float | None = None
        self.ended = False
        self._newest_token = 0.0
        self._arrivals = 0

    @property
    def whole(self) -> bool:
        """A finish reason and the final count are there: nothing but a closing line can be missing."""
        return self.finish_reason is not None and self.usage.completion_tokens is not None

    def take(self, pieces: Iterable[Piece], translator: Translator) -> bool:
        """Take pieces in, up to the end mark; True if one bore a token.

        Raises ServerError for more text than the allowed tokens can be.
        """
        room = self._room
        for piece in pieces:
            self._add(piece)
            if self._room < 0:
                raise translator.sign(Sign.ENDLESS, tokens=self.call.max_tokens)
            if piece.ended:
                self.ended = True
                break
        if self._room == room:
            return False
        self._newest_token = asyncio.get_running_loop().time()
        self._arrivals += 1
        return True

    def _add(self, piece: Piece) -> None:
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.model = piece.model or self.model
        if piece.usage is not None:
            self.usage = piece.usage if self.usage is UNTOLD else _updated(self.usage, piece.usage)
        if piece.text:
            self._texts.append(piece.text)
        if piece.thinking:
            self._thoughts.append(piece.thinking)
        size = len(piece.text) + len(piece.thinking)
        if size and self.call.hear is not None:
            self.call.hear(piece.text, piece.thinking)
        self._room -= size
        if size and self.first_token is None:
            self.first_token = asyncio.get_running_loop().time()

    def cost(self) -> Usage:
        """What was told that it cost, without a count of tokens that it cannot have."""
        written = self.usage.completion_tokens or 0
        believed = written <= TIMES_ALLOWED * self.call.max_tokens
        return self.usage if believed else replace(self.usage, completion_tokens=None)

    def writing_seconds(self) -> float | None:
        """How long its tokens took to come, those too that had come with the first."""
        if self.first_token is None or self._arrivals < FEWEST_ARRIVALS:
            return None
        return (self._newest_token - self.first_token) * self._arrivals / (self._arrivals - 1)

    def texts(self) -> tuple[str, str | None]:
        """The answer, and the thinking that came before it, both stripped."""
        answer, thinking = _whole(self._texts), _whole(self._thoughts)
        inner, mark, rest = answer.removeprefix("<think>").partition("</think>")
        # Some templates open the thoughts at the end of the prompt, so that an answer begins within them.
        begun = mark and not thinking and "<think>" not in inner
        if begun or answer.startswith("<think>"):
            thinking, answer = f"{thinking}\n\n{inner.strip()}".strip(), rest
        return answer.strip(), thinking or None

    def fault(self, text: str, thinking: str | None, translator: Translator) -> ServerError | None:
        """Why the ended answer, with its `texts`, is none; None if it is one."""
        if self.finish_reason is None:
            return translator.sign(Sign.NO_REASON)
        if text:
            return None
        if thinking:
            return translator.sign(Sign.ONLY_THINKING, tokens=self.cost().completion_tokens or self.call.max_tokens)
        return translator.sign(Sign.EMPTY)


def _updated(usage: Usage, told: Usage) -> Usage:
    """A server may tell a part with each event; what it tells last counts."""
    return replace(usage, **{f.name: v for f in fields(told) if (v := getattr(told, f.name)) is not None})


def _whole(pieces: list[str]) -> str:
    """The pieces as one text; a character that came in two halves is joined, a half alone is replaced."""
    text = "".join(pieces)
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "").strip()


async def converse(
    session: aiohttp.ClientSession,
    request: Request,
    parser: Parser,
    call: Call,
    limits: Limits,
    translator: Translator,
) -> Outcome:
    """Post `request` and read its answer to the end.

    Never raises for what a server does; when cancelled it closes the connection. An answer is accepted at
    the server's end mark, and also where the stream ends or falls silent after the finish reason *and* the
    final token count: some servers and proxies leave out the closing line, and nothing of the answer can be
    missing then.
    """
    started = asyncio.get_running_loop().time()
    answer = Answer(call)
    fault: ServerError | None = None
    try:
        await _receive(session, request, parser, answer, limits, translator)
    except ServerError as raised:
        fault = raised
    seconds = asyncio.get_running_loop().time() - started
    text, thinking = answer.texts()
    fault = fault or answer.fault(text, thinking, translator)
    return Outcome(
        error_class=fault.error_class if fault else None,
        error=fault.text if fault else None,
        answer="" if fault else translator.without_key(text),
        thinking=translator.without_key(thinking) if thinking else None,
        finish_reason=None if fault else answer.finish_reason,
        model=translator.without_key(_whole([answer.model or call.model]))[:LONGEST_NAME],
        usage=answer.cost(),
        seconds=seconds,
        first_token_seconds=None if answer.first_token is None else answer.first_token - started,
        writing_seconds=answer.writing_seconds(),
    )


def no_answer(fault: ServerError) -> Outcome:
    """The outcome of a call that was never sent."""
    return Outcome(fault.error_class, fault.text, "", None, None, None, Usage(), 0.0, None)


async def _receive(
    session: aiohttp.ClientSession,
    request: Request,
    parser: Parser,
    answer: Answer,
    limits: Limits,
    translator: Translator,
) -> None:
    """Fill `answer`; raise ServerError for whatever goes wrong."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.total
    clock = Deadline(min(end, loop.time() + limits.first_token))
    heard = False
    try:
        async with (
            clock,
            session.post(
                request.url, data=as_file(request.body), headers=request.headers, allow_redirects=False
            ) as response,
        ):
            heard = True
            if response.status != 200:
                raise translator.status(response.status, await read_some(response, LONGEST_ERROR))
            most = BYTES_AROUND + BYTES_PER_TOKEN * answer.call.max_tokens
            async for chunk in response.content.iter_any():
                # Comments and empty lines bear no token, and may come without end too.
                most -= len(chunk)
                if most < 0:
                    raise translator.sign(Sign.ENDLESS, tokens=answer.call.max_tokens)
                bore_token = answer.take(parser.feed(chunk), translator)
                if answer.ended:
                    clock.reschedule(None)
                    await _drain(response)
                    return
                if bore_token:
                    clock.reschedule(min(end, loop.time() + limits.between_chunks))
            answer.take(parser.end(), translator)
            if answer.ended:
                return
        if not answer.whole:
            raise translator.sign(Sign.NO_MARKER)
    except ServerError:
        raise
    except Exception as error:
        if not clock.expired():
            raise translator.exception(error, heard=heard) from error
        if not answer.whole:
            raise _silence(answer, limits, translator, over=loop.time() >= end) from None


def _silence(answer: Answer, limits: Limits, translator: Translator, *, over: bool) -> ServerError:
    """Which of the three limits was passed."""
    if over:
        return translator.sign(Sign.TOO_SLOW, seconds=limits.total)
    if answer.first_token is None:
        return translator.sign(Sign.NO_FIRST_TOKEN, seconds=limits.first_token)
    return translator.sign(Sign.SILENT, seconds=limits.between_chunks)


def as_file(body: bytes) -> bytes | io.BytesIO:
    """The body of a request as aiohttp wants it."""
    return body if len(body) < LARGE_BODY else io.BytesIO(body)


async def read_some(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body that ought to be short: at most about `limit` bytes, and what comes within 5 s."""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(5):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= limit:
                    break
    return bytes(body)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what follows the end mark, so that the connection can be used again."""
    if response.content.at_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(0.2):
            async for _ in response.content.iter_any():
                pass
