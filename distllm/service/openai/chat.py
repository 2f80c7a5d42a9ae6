"""`/v1/chat/completions` and `/v1/completions`: one question asked now, whatever the hour, and answered here."""

import asyncio
import json
import logging
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiohttp import web
from pydantic_core import from_json

from distllm.dispatcher.direct import Direct, TooLongError, TooManyError
from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.domain.models import Call, ErrorClass, Outcome
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.service.endpoint import desk_of, has_left
from distllm.service.openai.answers import Pieces, answer_body, usage_of
from distllm.service.openai.faults import FaultError, error_body
from distllm.service.openai.thoughts import Thoughts
from distllm.service.openai.wishes import Wish, wish_of

LEFT_EVERY_SECONDS = 0.2
"""How often it is looked whether whoever asked is still there."""

SILENT_SECONDS = 10.0
"""After so long a stream says that it is alive, so that nobody on the way takes it for dead."""

_STATUS = {ErrorClass.INPUT: 400, ErrorClass.BUSY: 503, ErrorClass.REFUSED: 503, ErrorClass.SETUP: 503}

_LEFT = 499
"""What servers note of a request whose client has left before the answer."""

Piece = tuple[str, str]

logger = logging.getLogger("distllm.service")


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer a request, in one piece or in many."""
    desk = desk_of(request)
    if desk.leaving():
        raise FaultError(503, "the service is stopping: ask again in a while")
    wish = wish_of(request.path, await _given(request))
    try:
        model = await desk.choose_model(wish.model)
    except NoWorkerError as error:
        raise FaultError(503, str(error)) from None
    except DistllmError as error:
        raise FaultError(404, str(error), param="model", code="model_not_found") from None
    direct = desk.direct
    try:
        with direct.place():
            return await (_stream if wish.stream else _whole)(request, direct, wish, _call(wish, model))
    except NoWorkerError as error:
        raise FaultError(503, str(error)) from None
    except TooManyError as error:
        raise FaultError(429, str(error), code="too_many_requests") from None
    except TooLongError as error:
        raise FaultError(400, str(error), param="messages", code="context_length_exceeded") from None


async def _given(request: web.Request) -> dict[str, Any]:
    try:
        found = from_json(await request.read(), allow_inf_nan=False)
    except ValueError as error:
        raise FaultError(400, f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise FaultError(400, "the body must be an object in JSON")
    return found


def _call(wish: Wish, model: str) -> Call:
    asked = wish.asked
    texts = filter(None, (asked.system, *(text for _, text in asked.turns), asked.question))
    return Call(
        model=model,
        system=asked.system,
        question=asked.question,
        max_tokens=wish.max_tokens,
        temperature=wish.temperature,
        tokens=sum(estimate_tokens(text) + FRAME_TOKENS for text in texts),
        turns=asked.turns,
        extra=wish.extra,
    )


async def _whole(request: web.Request, direct: Direct, wish: Wish, call: Call) -> web.Response:
    choices = await direct.choose(call)
    outcome = await _while_there(request, direct.ask(call, choices))
    if outcome is None:
        logger.info("whoever asked has left")
        # Nobody reads it.
        return web.Response(status=_LEFT)
    if outcome.error_class is not None:
        status = _STATUS.get(outcome.error_class, 502)
        return web.json_response(error_body(status, _why(outcome)), status=status)
    body = answer_body(
        request.path,
        uuid.uuid4().hex,
        desk_of(request).clock.now(),
        outcome.model or wish.model,
        outcome.answer,
        outcome.thinking,
        outcome.finish_reason or "stop",
        _usage(outcome),
    )
    return web.json_response(body)


async def _while_there(request: web.Request, asking: Coroutine[Any, Any, Outcome]) -> Outcome | None:
    """Wait for an answer; None if whoever asked leaves: then nothing more is asked of the worker."""
    task = asyncio.create_task(asking)
    try:
        while not (await asyncio.wait((task,), timeout=LEFT_EVERY_SECONDS))[0]:
            if has_left(request):
                return None
        return task.result()
    finally:
        await _end(task)


async def _stream(request: web.Request, direct: Direct, wish: Wish, call: Call) -> web.StreamResponse:
    # Chosen before the stream begins, so that what cannot be asked has a status of its own.
    choices = await direct.choose(call)
    coming: asyncio.Queue[Piece | None] = asyncio.Queue()
    heard = replace(call, hear=lambda text, thinking: coming.put_nowait((text, thinking)))
    task = asyncio.create_task(direct.ask(heard, choices))
    task.add_done_callback(lambda _: coming.put_nowait(None))
    stream = Stream(request, wish, desk_of(request).clock.now())
    try:
        await stream.open()
        while (piece := await _next(coming, stream, request)) is not None:
            await stream.say(*piece)
        await stream.close(task.result())
    except ConnectionError:
        logger.info("whoever asked has left")
    finally:
        await _end(task)
    return stream.response


async def _next(coming: "asyncio.Queue[Piece | None]", stream: "Stream", request: web.Request) -> Piece | None:
    """What comes next, None at the end; whoever asked may leave meanwhile."""
    silent = 0.0
    while True:
        try:
            async with asyncio.timeout(LEFT_EVERY_SECONDS):
                return await coming.get()
        except TimeoutError:
            if has_left(request):
                raise ConnectionResetError("whoever asked has left") from None
            silent += LEFT_EVERY_SECONDS
        if silent >= SILENT_SECONDS:
            await stream.ping()
            silent = 0.0


async def _end(task: "asyncio.Task[Outcome]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Stream:
    """An answer as server-sent events."""

    def __init__(self, request: web.Request, wish: Wish, now: float) -> None:
        self._request = request
        self._thoughts = Thoughts()
        self._told = wish.include_usage
        self._pieces = Pieces(request.path, uuid.uuid4().hex, now, wish.model, told=wish.include_usage)
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})

    async def open(self) -> None:
        """Begin."""
        await self.response.prepare(self._request)
        await self._put(self._pieces.first())

    async def say(self, text: str, thinking: str) -> None:
        """Tell what came."""
        said, thought = self._thoughts.feed(text)
        await self._say(said, thinking + thought)

    async def ping(self) -> None:
        """Tell that it goes on."""
        await self._write(b": still here\n\n")

    async def close(self, outcome: Outcome) -> None:
        """Tell how it ended."""
        if outcome.error_class is None:
            await self._say(*self._thoughts.end())
            await self._put(self._pieces.last(outcome.finish_reason or "stop"))
            if self._told:
                await self._put(self._pieces.usage(_usage(outcome)))
            await self._write(b"data: [DONE]\n\n")
        else:
            await self._put(error_body(_STATUS.get(outcome.error_class, 502), _why(outcome)))
        await self.response.write_eof()

    async def _say(self, said: str, thought: str) -> None:
        if said or thought:
            await self._put(self._pieces.piece(said, thought))

    async def _put(self, body: dict[str, Any]) -> None:
        await self._write(b"data: %b\n\n" % json.dumps(body).encode())

    async def _write(self, data: bytes) -> None:
        await self.response.write(data)


def _usage(outcome: Outcome) -> dict[str, Any]:
    usage = outcome.usage
    return usage_of(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


def _why(outcome: Outcome) -> str:
    return outcome.error or "the worker gave no answer"
