"""Any server that speaks OpenAI's API: llama.cpp, mlx-lm, vLLM, LM Studio's /v1, and many more."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from distllm.domain.models import Call, Health, Limits, Offer, Outcome, Usage, WorkerSpec
from distllm.workers.base import Worker
from distllm.workers.errors import ServerError, Sign, Translator, said
from distllm.workers.exchange import Piece, Request, converse, read_some
from distllm.workers.sse import events

if TYPE_CHECKING:
    import aiohttp

LONGEST_LIST = 4 * 2**20
"""Bytes read of a list of models."""

FINISH_REASONS = {"stop": "stop", "eos": "stop", "length": "length", "max_tokens": "length"}

LARGEST_COUNT = 2**53
"""A number of tokens beyond this is none, and no database could hold it."""


class OpenAIWorker(Worker):
    """A server with `/v1/chat/completions`, or `/v1/completions` where the endpoint is `completions`.

    Always streams and always sends `max_tokens`. `extra` fields are passed through, but cannot replace
    what a call or the streaming needs.
    """

    def __init__(self, spec: WorkerSpec, session: "aiohttp.ClientSession") -> None:
        super().__init__(spec, session)
        self._connect(self.identity, spec.api_key)

    def _connect(self, base: str, api_key: str | None) -> None:
        """Speak to `base` (a URL without a path) from now on."""
        self._base = base
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._translator = Translator(self.identity, api_key)

    @property
    def api_endpoint(self) -> str:
        """The address that questions go to."""
        return f"{self._base}/v1/{'completions' if self._raw else 'chat/completions'}"

    @property
    def health_endpoint(self) -> str:
        """The address that probes go to."""
        return f"{self._base}/v1/models"

    @property
    def _raw(self) -> bool:
        return self.spec.endpoint != "chat"

    async def ask(self, call: Call, limits: Limits) -> Outcome:
        """Ask one question and wait for the whole answer; see `Worker.ask`."""
        headers = {**self._headers, "Content-Type": "application/json"}
        body = request_body(call, raw=self._raw, extra=self.spec.extra)
        request = Request(self.api_endpoint, headers, body)
        return await converse(self._session, request, self._pieces, call, limits, self._translator)

    async def probe(self, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - the promise is to return, not to raise
        """List the models, and on llama.cpp ask for the slots; see `Worker.probe`.

        `slots` is what the server tells, whatever is configured. Where a model is configured, the offer is
        of that model alone; a server without it is healthy but offers nothing, and `error` says so.
        """
        try:
            async with asyncio.timeout(timeout):
                models = _models(await self._get("/v1/models"))
                if models is None:
                    text = "answers, but not with a list of models as OpenAI-compatible servers do"
                    return Health(False, error=f"{self.identity}: {text}")
                llama = any(model.get("owned_by") == "llamacpp" for model in models)
                slots = await self._slots() if llama else None
        except ServerError as fault:
            return Health(False, error=fault.text)
        except TimeoutError:
            return Health(False, error=f"{self.identity}: no answer within {timeout:g} s")
        except Exception as error:
            return Health(False, error=self._translator.exception(error, heard=False).text)
        return self._health(models, llama, slots)

    def _health(self, models: list[dict[str, Any]], llama: bool, slots: int | None) -> Health:
        wanted = self.spec.model
        if wanted is None:
            return Health(True, tuple(self._offer(m["id"], m) for m in models), slots)
        for model in models:
            if wanted == model["id"] or wanted in (model.get("aliases") or ()):
                return Health(True, (self._offer(wanted, model),), slots)
        if llama and len(models) == 1:
            # llama.cpp answers with the one model it has, whatever name is asked for.
            return Health(True, (self._offer(wanted, models[0]),), slots)
        names = [model["id"] for model in models]
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        error = f"{self.identity}: has no model {wanted!r}; it has {listed or 'none'}"
        return Health(True, (), slots, error)

    def _offer(self, name: str, model: dict[str, Any]) -> Offer:
        meta = model.get("meta")
        told = (model.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None)
        lengths = [n for n in map(_count, (*told, self.spec.context_length)) if n]
        loaded = True if isinstance(meta, dict) else None
        return Offer(name, min(lengths, default=None), loaded, window_told=any(map(_count, told)), digest=self.weights)

    async def _slots(self) -> int | None:
        try:
            props = await self._get("/props")
        except ServerError:
            return None
        return _count(props.get("total_slots")) if isinstance(props, dict) else None

    async def _get(self, path: str) -> object:
        """Get a JSON document. Raises ServerError, and what the HTTP client raises."""
        async with self._session.get(f"{self._base}{path}", headers=self._headers, allow_redirects=False) as response:
            body = await read_some(response, LONGEST_LIST)
            if response.status != 200:
                raise self._translator.status(response.status, body)
        try:
            found: object = json.loads(body)
        except (ValueError, RecursionError):
            raise self._not_json(body) from None
        if isinstance(found, dict) and found.get("error"):
            raise self._translator.stream_error(found["error"])
        return found

    async def _pieces(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[Piece, None]:
        """Translate a stream; a server that ignores `stream` and answers in one JSON is understood too."""
        async for event in events(chunks):
            if event.data == b"[DONE]":
                yield Piece(ended=True)
                return
            if not event.data.strip():
                continue
            try:
                payload = json.loads(event.data.decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                raise self._not_json(event.data) from None
            if not isinstance(payload, dict):
                raise self._not_json(event.data)
            if payload.get("error") or event.name == "error" or payload.get("object") == "error":
                raise self._translator.stream_error(payload.get("error") or payload)
            yield self._piece(payload, ended=event.stray)

    def _piece(self, payload: dict[str, Any], *, ended: bool) -> Piece:
        choices = payload.get("choices")
        choice = _fields(choices[0]) if isinstance(choices, list) and choices else {}
        delta = _fields(choice.get("delta") or choice.get("message"))
        reason = choice.get("finish_reason")
        if reason and str(reason) not in FINISH_REASONS:
            raise self._translator.sign(Sign.ODD_REASON, said=reason)
        return Piece(
            text=_text(delta.get("content")) or _text(choice.get("text")),
            thinking=_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")),
            finish_reason=FINISH_REASONS[reason] if reason else None,
            model=_text(payload.get("model")) or None,
            usage=_usage(payload.get("usage"), payload.get("timings")),
            ended=ended,
        )

    def _not_json(self, body: bytes) -> ServerError:
        text = body[:20_000].decode("utf-8", "replace")
        sign = Sign.WEB_PAGE if text.lstrip().startswith("<") else Sign.NOT_JSON
        return self._translator.sign(sign, said=said(text) or "nothing")


def request_body(call: Call, *, raw: bool, extra: tuple[tuple[str, object], ...] = ()) -> bytes:
    """Build the JSON of one request; `raw` is one of `/v1/completions`.

    The system text, often a whole paper, is encoded once for all questions about it and spliced in.
    """
    rest = {name: value for name, value in extra if name not in ("messages", "prompt")} | {
        "model": call.model,
        "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    tail = json.dumps(rest).encode()[1:]
    if raw:
        parts = [text for _, text in call.turns] + [call.question]
        asked = json.dumps("\n\n".join([""] * bool(call.system) + parts)).encode()
        return b"".join((b'{"prompt": ', _encoded(call.system)[:-1], asked[1:], b", ", tail))
    messages = [
        json.dumps({"role": role, "content": text}).encode() for role, text in (*call.turns, ("user", call.question))
    ]
    if call.system:
        messages.insert(0, b'{"role": "system", "content": ' + _encoded(call.system) + b"}")
    return b"".join((b'{"messages": [', b", ".join(messages), b"], ", tail))


@lru_cache(maxsize=32)
def _encoded(text: str) -> bytes:
    return json.dumps(text).encode()


def _models(found: object) -> list[dict[str, Any]] | None:
    """The entries of a list of models, None if it is no such list."""
    listed = found.get("data") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        return None
    return [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]


def _usage(usage: object, timings: object) -> Usage | None:
    """Read OpenAI's `usage` and llama.cpp's `timings` (milliseconds), as far as they are there."""
    if not isinstance(usage, dict) and not isinstance(timings, dict):
        return None
    used, timed = _fields(usage), _fields(timings)
    cached = _count(_fields(used.get("prompt_tokens_details")).get("cached_tokens"))
    if cached is None:
        cached = _count(timed.get("cache_n"))
    read, computed = _count(used.get("prompt_tokens")), _count(timed.get("prompt_n"))
    if read is None and computed is not None:
        read = computed + (cached or 0)
    completion = _count(used.get("completion_tokens"))
    return Usage(
        prompt_tokens=read,
        cached_tokens=cached,
        completion_tokens=_count(timed.get("predicted_n")) if completion is None else completion,
        prefill_seconds=_seconds(timed.get("prompt_ms")),
        decode_seconds=_seconds(timed.get("predicted_ms")),
    )


def _fields(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    sound = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_COUNT
    return value if sound and isinstance(value, int) else None


def _seconds(milliseconds: object) -> float | None:
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool) and milliseconds >= 0:
        return milliseconds / 1000
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
