"""Any server that speaks OpenAI's API: llama.cpp, mlx-lm, vLLM, LM Studio's /v1, and many more."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from distllm.domain.models import Call, Health, Limits, Offer, Outcome, Usage, WorkerSpec
from distllm.workers.base import Worker
from distllm.workers.bodies import passed_through, splice
from distllm.workers.errors import Sign, Translator, said
from distllm.workers.exchange import Parser, Piece, Request, converse, no_answer
from distllm.workers.inquiry import Inquirer, examine, no_such_model, read_json
from distllm.workers.sse import Event, Events
from distllm.workers.told import count, fields, first, seconds, text

if TYPE_CHECKING:
    import aiohttp

COUNT_SECONDS = 5.0
"""How long a server may take to count; it does so beside the requests that it answers."""

CHAT_ONLY = frozenset({"response_format", "reasoning_effort"})
"""What a call may ask beyond its text that the raw endpoint would leave out without a word."""

FINISH_REASONS = {"stop": "stop", "eos": "stop", "length": "length", "max_tokens": "length"}


class OpenAIWorker(Worker):
    """A server with `/v1/chat/completions`, or `/v1/completions` where the endpoint is `completions`.

    Always streams and always sends `max_tokens`. `extra` fields are passed through, but cannot replace
    what a call or the streaming needs.
    """

    def __init__(self, spec: WorkerSpec, session: "aiohttp.ClientSession") -> None:
        super().__init__(spec, session)
        self._has_tokenizer: bool | None = None
        self._connect(self.identity, spec.api_key)

    def _connect(self, base: str, api_key: str | None) -> None:
        """Speak to `base` (a URL without a path) from now on."""
        self._base = base
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._translator = Translator(self.identity, api_key)
        self._server = Inquirer(self._session, base, self._headers, self._translator)

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
        strange = [name for name, _ in call.extra if self._raw and name in CHAT_ONLY]
        if strange:
            return no_answer(self._translator.sign(Sign.UNKNOWN_FIELD, said=", ".join(strange)))
        headers = {**self._headers, "Content-Type": "application/json"}
        body = request_body(call, raw=self._raw, extra=self.spec.extra)
        request = Request(self.api_endpoint, headers, body)
        return await converse(self._session, request, self._parser(call), call, limits, self._translator)

    def _parser(self, call: Call) -> Parser:
        """What translates the answer to `call`."""
        return OpenAIParser(self._translator)

    @property
    def counts_tokens(self) -> bool:
        """Whether this is llama.cpp's server, and has told at a probe that it can be asked."""
        return bool(self._has_tokenizer)

    async def count(self, call: Call) -> int | None:
        """Ask llama.cpp's server what it would read; see `Worker.count`."""
        if not self._has_tokenizer:
            return None
        if self._raw:
            asked = json.loads(request_body(call, raw=True))["prompt"]
            return await self._tokens_of(asked, add_special=True)
        body = request_body(call, raw=False, extra=self.spec.extra)
        told = fields(await self._server.ask_in_time(COUNT_SECONDS, "/v1/chat/completions/input_tokens", body))
        return self._told(count(told.get("input_tokens")))

    async def count_tokens(self, text: str) -> int | None:
        """Ask llama.cpp's server for the tokens of a text; see `Worker.count_tokens`."""
        return await self._tokens_of(text, add_special=False) if self._has_tokenizer else None

    async def _tokens_of(self, text: str, *, add_special: bool) -> int | None:
        body = json.dumps({"content": text, "add_special": add_special}).encode()
        told = fields(await self._server.ask_in_time(COUNT_SECONDS, "/tokenize", body))
        tokens = told.get("tokens")
        return self._told(len(tokens) if isinstance(tokens, list) else None)

    def _told(self, tokens: int | None) -> int | None:
        """What was told; who does not tell it is not asked again."""
        self._has_tokenizer = tokens is not None
        return tokens

    async def probe(self, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - the promise is to return, not to raise
        """List the models, and on llama.cpp ask for the slots; see `Worker.probe`.

        `slots` is what the server tells, whatever is configured. Where a model is configured, the offer is
        of that model alone; a server without it is healthy but offers nothing, and `error` says so.
        """
        return await examine(self._look(), timeout, self.identity, self._translator)

    async def _look(self) -> Health:
        models = _models(await self._server.ask("/v1/models"))
        if models is None:
            error = f"{self.identity}: answers, but not with a list of models as OpenAI-compatible servers do"
            return Health(False, error=error)
        owners = [model.get("owned_by") for model in models]
        if "library" in owners:
            # Asked by this API it would drop the beginning of a long prompt without a word.
            return Health(
                False, error=f"{self.identity}: is Ollama, which cuts long prompts here; give it type 'ollama'"
            )
        llama = "llamacpp" in owners
        if llama and self._has_tokenizer is None and await self._server.ask_if_told("/tokenize", {"content": "a"}):
            self._has_tokenizer = True
        slots = count(fields(await self._server.ask_if_told("/props")).get("total_slots")) if llama else None
        return self._health(models, llama, slots)

    def _health(self, models: list[dict[str, Any]], llama: bool, slots: int | None) -> Health:
        wanted = self.spec.model
        if wanted is None:
            return Health(True, tuple(self._offer(m["id"], m) for m in models), slots)
        for model in models:
            if wanted == model["id"] or (isinstance(aliases := model.get("aliases"), list) and wanted in aliases):
                return Health(True, (self._offer(wanted, model),), slots)
        if llama and len(models) == 1:
            # llama.cpp answers with the one model it has, whatever name is asked for.
            return Health(True, (self._offer(wanted, models[0]),), slots)
        return Health(True, (), slots, no_such_model(self.identity, wanted, (model["id"] for model in models)))

    def _offer(self, name: str, model: dict[str, Any]) -> Offer:
        meta = model.get("meta")
        told = (model.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None)
        lengths = [n for n in map(count, (*told, self.spec.context_length)) if n]
        loaded = True if isinstance(meta, dict) else None
        return Offer(name, min(lengths, default=None), loaded, window_told=any(map(count, told)), digest=self.weights)


class OpenAIParser:
    """Translates a stream; a server that ignores `stream` and answers in one JSON is understood too."""

    def __init__(self, translator: Translator) -> None:
        self._translator = translator
        self._events = Events()

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """See `Parser`."""
        return self._pieces(self._events.feed(chunk))

    def end(self) -> Iterator[Piece]:
        """See `Parser`."""
        return self._pieces(self._events.end())

    def _pieces(self, events: Iterable[Event]) -> Iterator[Piece]:
        """The text of events that bring nothing else is one piece: this is done for each token."""
        texts: list[str] = []
        model: str | None = None
        for data, name, stray in events:
            if data == b"[DONE]":
                yield Piece("".join(texts), model=model, ended=True)
                return
            if not data or data.isspace():
                continue
            payload = read_json(data, self._translator)
            if not isinstance(payload, dict):
                raise self._translator.sign(Sign.NOT_JSON, said=said(data.decode("utf-8", "replace")))
            if payload.get("error") or name == "error" or payload.get("object") == "error":
                raise self._translator.stream_error(payload.get("error") or payload)
            told = text(payload.get("model")) or model
            if texts and told != model:
                yield Piece("".join(texts), model=model)
                texts.clear()
            model = told
            choice = first(payload.get("choices"))
            delta = fields(choice.get("delta") or choice.get("message"))
            texts.append(text(delta.get("content") or choice.get("text")))
            thinking = text(delta.get("reasoning_content") or delta.get("reasoning"))
            reason = choice.get("finish_reason")
            usage = _usage(payload.get("usage"), payload.get("timings"))
            if thinking or reason or usage or stray:
                yield Piece("".join(texts), thinking, self._reason(reason), model, usage, stray)
                texts.clear()
        if texts:
            yield Piece("".join(texts), model=model)

    def _reason(self, told: object) -> str | None:
        """Why an answer ended, in distllm's words; None where nothing is told."""
        if told and str(told) not in FINISH_REASONS:
            raise self._translator.sign(Sign.ODD_REASON, said=told)
        return FINISH_REASONS[str(told)] if told else None


def request_body(call: Call, *, raw: bool, extra: tuple[tuple[str, object], ...] = ()) -> bytes:
    """Build the JSON of one request; `raw` is one of `/v1/completions`."""
    rest = passed_through((*extra, *call.extra)) | {
        "model": call.model,
        "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return splice(call, rest, raw=raw)


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
    used, timed = fields(usage), fields(timings)
    cached = count(fields(used.get("prompt_tokens_details")).get("cached_tokens"))
    if cached is None:
        cached = count(timed.get("cache_n"))
    read, computed = count(used.get("prompt_tokens")), count(timed.get("prompt_n"))
    if read is None and computed is not None:
        read = computed + (cached or 0)
    completion = count(used.get("completion_tokens"))
    return Usage(
        prompt_tokens=read,
        cached_tokens=cached,
        completion_tokens=count(timed.get("predicted_n")) if completion is None else completion,
        prefill_seconds=seconds(timed.get("prompt_ms"), 1000),
        decode_seconds=seconds(timed.get("predicted_ms"), 1000),
    )
