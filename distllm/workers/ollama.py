"""Ollama, by its own API: OpenAI's cannot set the window, and cuts a long prompt without a word."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distllm.domain.models import Call, ErrorClass, Health, Limits, Offer, Outcome, Usage, WorkerSpec
from distllm.workers.base import Worker
from distllm.workers.bodies import passed_through, splice
from distllm.workers.errors import ServerError, Sign, Translator, said
from distllm.workers.exchange import Piece, Request, converse, no_answer
from distllm.workers.inquiry import MOST_OFFERS, Inquirer, examine, no_such_model, read_json
from distllm.workers.sse import Lines
from distllm.workers.told import count, fields, objects, seconds, text

if TYPE_CHECKING:
    import aiohttp

FINISH_REASONS = {"stop": "stop", "length": "length"}

UNDERSTOOD = frozenset(
    {"top_p", "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty"}
    | {"response_format"}
)
"""What a call may ask beyond its text: Ollama has an option of the same name for each, and `format`."""

KEEP_ALIVE = "30m"
"""How long a model stays loaded after a request; Ollama's own 5 minutes end during a long paper elsewhere."""

NANOSECONDS = 1_000_000_000

UNCOUNTED_CACHE = "0.30.0"
"""The version whose count of prompt tokens leaves out the cached ones, so that it tells nothing."""

SHARE_OF_A_PROBE = 0.5
"""The part of a probe's time that what is good to know, but not needed, may take."""

PATIENCE = 2.0
"""Seconds that an answer waits for the window it met."""

REMEMBERED_TEXTS = 1024

LINES_TO_TELL = 50
"""Lines of a page that a proxy sent instead of an answer; its title is among the first."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What `/api/show` tells of a model: the window it was made for, and whether it writes at all."""

    maximum: int | None
    writes: bool


class OllamaWorker(Worker):
    """Ollama's `/api/chat`, or `/api/generate` with a raw prompt where the endpoint is not `chat`.

    Always streams, always sends a token limit, and never lets the server cut: a prompt that its window does
    not hold is refused. The window asked for is the same in every request about a model, since another would
    reload it: what is configured, else what is loaded when the first is sent, else the server's own. Thinking
    is switched off, because it would use up the tokens of the answer; `"extra": {"think": true}` has it.
    """

    def __init__(self, spec: WorkerSpec, session: "aiohttp.ClientSession") -> None:
        super().__init__(spec, session)
        self._headers = {"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {}
        self._translator = Translator(self.identity, spec.api_key)
        self._server = Inquirer(session, self.identity, self._headers, self._translator)
        self._extra = passed_through(spec.extra)
        self._options = fields(self._extra.pop("options", None))
        self._configured = spec.context_length or count(self._options.get("num_ctx"))
        self._loaded: set[str] = set()
        self._windows: dict[str, int] = {}
        self._asked_for: dict[str, int | None] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._facts: dict[str, _Facts] = {}
        self._texts: deque[int] = deque(maxlen=REMEMBERED_TEXTS)
        self._counts_cached = True

    @property
    def api_endpoint(self) -> str:
        """The address that questions go to."""
        return f"{self.identity}/api/{'generate' if self._raw else 'chat'}"

    @property
    def health_endpoint(self) -> str:
        """The address that probes go to."""
        return f"{self.identity}/api/tags"

    @property
    def _raw(self) -> bool:
        return self.spec.endpoint != "chat"

    async def ask(self, call: Call, limits: Limits) -> Outcome:
        """Ask one question and wait for the whole answer; see `Worker.ask`."""
        strange = [name for name, _ in call.extra if name not in UNDERSTOOD]
        if strange:
            return no_answer(self._translator.sign(Sign.UNKNOWN_FIELD, said=", ".join(strange)))
        headers = {**self._headers, "Content-Type": "application/json"}
        may_load = call.model not in self._asked_for or call.model not in self._loaded
        request = Request(self.api_endpoint, headers, splice(call, self._fields(call), raw=self._raw))
        parser = _Parser(self._translator, cold=self._is_new(call.system), counts_cached=self._counts_cached)
        outcome = await converse(self._session, request, parser, call, limits, self._translator)
        if not may_load or outcome.error_class not in (None, ErrorClass.INPUT):
            return outcome
        return replace(outcome, window=await self._window_met(call.model))

    async def _window_met(self, name: str) -> int | None:
        """The window of a model that may have been loaded just now; None where it is not told."""
        end = asyncio.get_running_loop().time() + PATIENCE
        self._note(name, await self._server.ask_until(end, "/api/ps"))
        if name not in self._loaded or name not in self._windows:
            return None
        bounds = (self._windows[name], self._asked_for.get(name), self._maximum(name))
        return min(bound for bound in bounds if bound)

    def _fields(self, call: Call) -> dict[str, object]:
        window = self._asked_for.setdefault(call.model, self._configured or self._windows.get(call.model))
        asked = dict(call.extra)
        form = asked.pop("response_format", None)
        options = {**self._options, **asked, "num_predict": call.max_tokens, "temperature": call.temperature}
        if window is not None:
            options["num_ctx"] = window
        needed = {"model": call.model, "stream": True, "truncate": False, "shift": False, "options": options}
        # A raw prompt has no template that could switch thinking off.
        preset: dict[str, object] = {"raw": True} if self._raw else {"think": self._extra.get("think", False)}
        if form is not None:
            preset["format"] = _format(fields(form))
        return {"keep_alive": KEEP_ALIVE} | self._extra | preset | needed

    def _is_new(self, system: str) -> bool:
        """Whether this process has it read for the first time; what others had it read, only the database knows."""
        mark = hash(system)
        if not system or mark not in self._texts:
            self._texts.append(mark)
            return True
        return False

    async def probe(self, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - the promise is to return, not to raise
        """List the models, and ask which are loaded with what window; see `Worker.probe`. Loads nothing.

        Slots are not told. A window is known once the model is loaded, or if one is configured.
        """
        end = asyncio.get_running_loop().time() + SHARE_OF_A_PROBE * timeout
        return await examine(self._look(end), timeout, self.identity, self._translator)

    async def _look(self, end: float) -> Health:
        version = fields(await self._server.ask_if_told("/api/version")).get("version")
        try:
            listed = fields(await self._server.ask("/api/tags")).get("models")
        except ServerError as fault:
            if version is not None:
                raise
            return Health(False, error=f"{fault.text}; is its type right?")
        if not isinstance(listed, list) or not isinstance(version, str):
            # llama.cpp has the list too, but answers in another form.
            return Health(False, error=f"{self.identity}: answers, but not as Ollama does; is its type right?")
        self._counts_cached = version != UNCOUNTED_CACHE
        models = [each for each in objects(listed) if isinstance(each.get("name"), str)]
        wanted = self.spec.model
        if wanted is None:
            # What only passes questions on to someone else's server must be asked for by name.
            chosen = [model for model in models if not model.get("remote_host")][:MOST_OFFERS]
        else:
            names = (wanted.lower(), f"{wanted}:latest".lower())
            chosen = [model for model in models if model["name"].lower() in names][:1]
            if not chosen:
                error = no_such_model(self.identity, wanted, (model["name"] for model in models))
                return Health(True, (), None, error)
        running = await self._server.ask_until(end, "/api/ps")
        offers = []
        for model in chosen:
            facts = await self._look_up(model, end)
            if facts.writes or wanted is not None:
                name = wanted or str(model["name"])
                self._entries[name] = model
                self._note(name, running)
                offers.append(self._offer(name, running))
        return Health(True, tuple(offers))

    async def _look_up(self, model: dict[str, Any], end: float) -> _Facts:
        """What a model is made for; asked once for the same weights."""
        weights = _weights(model)
        if weights not in self._facts:
            told = fields(await self._server.ask_until(end, "/api/show", {"model": model["name"]}))
            if not told:
                return _Facts(None, writes=True)
            info, abilities = fields(told.get("model_info")), told.get("capabilities")
            maximum = count(info.get(f"{info.get('general.architecture')}.context_length"))
            writes = not isinstance(abilities, list) or "completion" in abilities
            self._facts[weights] = _Facts(maximum, writes)
        return self._facts[weights]

    def _note(self, name: str, running: object) -> None:
        """Keep what is loaded with what window; where that could not be asked, what was known still holds."""
        if running is None:
            return
        here = _running(running, self._entries.get(name, {"name": name}))
        window = count(fields(here).get("context_length"))
        if here is None:
            self._loaded.discard(name)
            if name not in self._asked_for:
                # Whoever had it loaded is gone, and with it the window that was chosen.
                self._windows.pop(name, None)
            return
        self._loaded.add(name)
        if window:
            self._windows[name] = window

    def _maximum(self, name: str) -> int | None:
        """The window that a model was made for, where that is known."""
        facts = self._facts.get(_weights(self._entries.get(name, {})))
        return facts.maximum if facts else None

    def _offer(self, name: str, running: object) -> Offer:
        """The window is what a request would meet: one that asks for another than is loaded has it reloaded."""
        window, asked_for = self._windows.get(name), self._asked_for.get(name)
        to_be_reloaded = self._configured not in (None, window) and name not in self._asked_for
        known = [self._configured] if to_be_reloaded else [self._configured, asked_for, window]
        # What a model was made for is not its window, but bounds it.
        lengths = [length for length in (*known, self._maximum(name) if any(known) else None) if length]
        return Offer(
            name,
            min(lengths, default=None),
            None if running is None else name in self._loaded,
            window_told=window is not None and name in self._loaded and not to_be_reloaded,
            digest=text(self._entries[name].get("digest")) or None,
            also=(name.removesuffix(":latest"),) if name.endswith(":latest") else (),
        )


class _Parser:
    """Translates lines of JSON; only `done` ends an answer, whatever the stream does.

    Where the text is not `cold`, an unknown part of it was cached; else nothing that this process sent.
    """

    def __init__(self, translator: Translator, *, cold: bool, counts_cached: bool) -> None:
        self._translator = translator
        self._cold = cold
        self._counts_cached = counts_cached
        self._lines = Lines()
        self._page: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """See `Parser`."""
        return self._pieces(self._lines.feed(chunk))

    def end(self) -> Iterator[Piece]:
        """See `Parser`."""
        yield from self._pieces(self._lines.end())
        if self._page:
            raise self._no_answer()

    def _pieces(self, lines: Iterable[bytes]) -> Iterator[Piece]:
        for line in lines:
            if self._page:
                self._page.append(line)
                if len(self._page) > LINES_TO_TELL:
                    raise self._no_answer()
            elif line.lstrip().startswith(b"{"):
                payload = fields(read_json(line, self._translator))
                if "error" in payload:
                    raise self._translator.stream_error(payload["error"])
                yield self._piece(payload)
            elif line.strip():
                self._page.append(line)

    def _no_answer(self) -> ServerError:
        """What a page is that came instead of an answer."""
        try:
            read_json(b"\n".join(self._page), self._translator)
        except ServerError as fault:
            return fault
        return self._translator.sign(Sign.NOT_JSON, said=said(self._page[0].decode("utf-8", "replace")))

    def _piece(self, payload: dict[str, Any]) -> Piece:
        message, done = fields(payload.get("message")), payload.get("done") is True
        reason = payload.get("done_reason") if done else None
        if reason and str(reason) not in FINISH_REASONS:
            raise self._translator.sign(Sign.ODD_REASON, said=reason)
        return Piece(
            text=text(message.get("content")) or text(payload.get("response")),
            thinking=text(message.get("thinking")) or text(payload.get("thinking")),
            finish_reason=FINISH_REASONS[reason] if reason else None,
            model=text(payload.get("model")) or None,
            usage=self._usage(payload) if done else None,
            ended=done,
        )

    def _usage(self, payload: dict[str, Any]) -> Usage:
        """Read counts and nanoseconds. What was cached is not told, and the time for the rest tells no speed then."""
        return Usage(
            prompt_tokens=count(payload.get("prompt_eval_count")) if self._counts_cached else None,
            completion_tokens=count(payload.get("eval_count")),
            prefill_seconds=seconds(payload.get("prompt_eval_duration"), NANOSECONDS) if self._cold else None,
            decode_seconds=seconds(payload.get("eval_duration"), NANOSECONDS),
            load_seconds=seconds(payload.get("load_duration"), NANOSECONDS),
        )


def _format(form: dict[str, Any]) -> object:
    """What Ollama calls OpenAI's `response_format`: a JSON schema, or any JSON."""
    return fields(form.get("json_schema")).get("schema") or "json"


def _weights(model: dict[str, Any]) -> str:
    """What tells one model from another, though they may have the same name at different times."""
    return text(model.get("digest")) or text(model.get("name"))


def _running(running: object, model: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of a loaded model: names may differ where the weights are the same."""
    for each in objects(fields(running).get("models")):
        if each.get("name") == model["name"] or (each.get("digest") and each.get("digest") == model.get("digest")):
            return each
    return None
