"""A server on the loopback that behaves as a real one of its kind, without any model."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from aiohttp import web

from tests.fakes.behaviour import GOOD, Behaviour, Caching, Cut, Ending
from tests.fakes.kinds import kind_of
from tests.fakes.slots import Slot, Slots, tokenize
from tests.fakes.stream import Seen, abort

OWN = -1
"""A fake that tells the window that it has."""


class FakeServer:
    """Answers every request well, except those that `behave` has scripted.

        async with FakeServer(model="m") as server:
            server.behave(BUSY)                   # the next request; all after it are answered well
            ...
            assert server.requests[0].question

    `stop` ends it as a kill would, and `start` brings it back on the same port. `kind` is whom it resembles:
    `llamacpp`, `vllm`, `plain` (OpenAI's API and no more), `lm_studio` or `ollama`. Prompt tokens are what
    `tokenize` counts; those that a slot has cached take no time. `slower` tells how many times as long a token takes
    to write while so many requests run.

    LM Studio and Ollama: `models` are on disk, `loaded` those in memory at the start (by default LM Studio's
    first, and none of Ollama's), `seconds_to_load` what loading takes; `loads` are the (model, window) that
    requests had loaded. `version` decides what an older one does differently. `thinks` are the words that a
    thinking model thinks before each answer. `renders` tells Ollama's models with a renderer of Ollama's own,
    whose prompts are cut, from those that are refused.

    `tells` is the window that it tells, by default its own, None to tell none; `cuts` what it does with what its own
    does not hold, where it does not refuse it; `caching` what its counts say of what was cached. llama.cpp's has a
    tokenizer, unless `tokenizes` is false; `counts` are the prompts that it was asked to count.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        model: str = "fake-model",
        models: tuple[str, ...] | None = None,
        kind: str = "llamacpp",
        slots: int = 1,
        context: int = 8192,
        api_key: str | None = None,
        seconds_per_prompt_token: float = 0.0,
        seconds_per_token: float = 0.0,
        slower: Callable[[int], float] = lambda running: 1.0,
        loaded: tuple[str, ...] | None = None,
        jit: bool = True,
        seconds_to_load: float = 0.0,
        version: str | None = None,
        thinks: str | None = None,
        renders: bool = True,
        tells: int | None = OWN,
        cuts: Cut | None = None,
        caching: Caching = Caching.TOLD,
        tokenizes: bool = True,
        answer: Callable[[Seen], str] | None = None,
        on_request: Callable[[Seen], None] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.model = model
        self.models = models or (model,)
        self.kind = kind
        self.slot_count = slots
        self.context = context
        self.api_key = api_key
        self.seconds_per_prompt_token = seconds_per_prompt_token
        self.seconds_per_token = seconds_per_token
        self.slower = slower
        self.loaded = loaded if loaded is not None else self.models[:1] if kind == "lm_studio" else ()
        self.jit = jit
        self.seconds_to_load = seconds_to_load
        self.version = version or {"ollama": "0.33.0", "lm_studio": "0.4.1"}.get(kind)
        self.thinks = thinks
        self.renders = renders
        self.overflow_is_told = True
        self.cuts = cuts
        self.caching = caching
        self.tokenizes = tokenizes
        self.counts = 0
        self.loads: list[tuple[str, int]] = []
        self.aborted_loads = 0
        self.shown = 0
        self.answer = answer or (lambda seen: f"Answer to: {seen.question}")
        self.requests: list[Seen] = []
        self.in_flight = 0
        """Requests whose client waits for the answer."""
        self.most_at_once = 0
        self.probes = 0
        self.probe_status = 200
        self.probe_hangs = False
        self.ps_hangs = False
        self._tells = tells
        self._on_request = on_request
        self._script: deque[Behaviour] = deque()
        self._by_text: dict[str, Behaviour] = {}
        self._always = GOOD
        self._changed = asyncio.Event()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._ports: set[object] = set()

    @property
    def connections(self) -> int:
        """How many connections brought the requests for answers."""
        return len(self._ports)

    @property
    def told_context(self) -> int | None:
        """The window that it tells, None if it tells none."""
        return self.context if self._tells == OWN else self._tells

    def read_of(self, seen: Seen, tokens: int, window: int) -> int | None:
        """How many of the tokens of a prompt are read, None where it is refused."""
        if tokens < window:
            return int(tokens * seen.behaviour.prompt_share)
        match self.cuts:
            case None:
                return None
            case Cut.HALF:
                return window // 2 + 2
            case Cut.TENTH:
                return int(0.9 * tokens)
            case Cut.MESSAGES:
                return _without_earliest(seen.body, window)
            case Cut.SWALLOWS:
                seen.behaviour = replace(seen.behaviour, answer="", usage=False)
                return tokens

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def behave(self, *behaviours: Behaviour) -> None:
        """Script the next requests, one behaviour each."""
        self._script.extend(behaviours)

    def behave_always(self, behaviour: Behaviour) -> None:
        """Treat every unscripted request so from now on."""
        self._always = behaviour

    def behave_for(self, text: str, behaviour: Behaviour) -> None:
        """Treat every request that has `text` in it so."""
        self._by_text[text] = behaviour

    def release(self) -> None:
        """Let requests go on that are `held`, now and from now on."""
        self._released.set()

    async def start(self) -> None:
        """Listen; after a `stop`, on the same port and with nothing cached."""
        self.slots = Slots(self.slot_count)
        self._own = kind_of(self)
        app = web.Application(client_max_size=2**26)
        self._own.add_routes(app)
        # Idle connections are closed after 5 s; a client that leaves stops its request.
        self._runner = web.AppRunner(
            app, keepalive_timeout=5, handler_cancellation=True, shutdown_timeout=0, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Reset every connection and listen no more."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        for handler in runner.server.connections if runner.server else ():
            if handler.transport is not None:
                handler.transport.abort()
        await runner.cleanup()

    async def until(self, met: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until a condition on `requests` holds; TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            while not met():
                self._changed.clear()
                await self._changed.wait()

    async def probed(self, request: web.Request) -> web.Response | None:
        """Count a probe, and treat it as `probe_status` and `probe_hangs` say; None lets it in."""
        self.probes += 1
        self._changed.set()
        if self.probe_hangs:
            await asyncio.Event().wait()
        if self.probe_status != 200:
            error = {"message": "no list of models", "code": self.probe_status}
            return web.json_response({"error": error}, status=self.probe_status)
        return None if self.allowed(request) else self._own.wrong_key()

    def show_slots(self) -> list[dict[str, Any]]:
        """What each slot does, as llama.cpp tells it."""
        running = {seen.slot: seen for seen in self.requests if seen.ended is None}
        return [
            {"id": i, "is_processing": i in running, "next_token": [{"n_decoded": running[i].sent_tokens}]}
            if i in running
            else {"id": i, "is_processing": False}
            for i in range(self.slot_count)
        ]

    def allowed(self, request: web.Request) -> bool:
        """Whether a request has the key."""
        return self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}"

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, well or as it was scripted."""
        body = await request.json()
        self._ports.add(request.transport.get_extra_info("peername") if request.transport else None)
        system, question = _parts(body)
        behaviour = next((each for text, each in self._by_text.items() if text in system + question), None)
        behaviour = behaviour or (self._script.popleft() if self._script else self._always)
        seen = Seen(request.path, dict(request.headers), body, system, question, behaviour)
        seen.caching = self.caching
        seen.prefill = self.seconds_per_prompt_token or seen.prefill
        seen.decode = self.seconds_per_token or seen.decode
        self.requests.append(seen)
        self.in_flight += 1
        self.most_at_once = max(self.most_at_once, self.in_flight)
        self._changed.set()
        if self._on_request is not None:
            self._on_request(seen)
        try:
            response = await self._treat(request, seen)
            seen.ended = seen.ended or "answered"
        except (asyncio.CancelledError, ConnectionError):
            seen.ended = seen.ended or "disconnected"
            raise
        finally:
            self.in_flight -= 1
            self._own.answered(seen)
            self._changed.set()
        return response

    async def _treat(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        b = seen.behaviour
        await asyncio.sleep(b.headers_after)
        if b.reset:
            abort(request, seen)
        if b.status != 200 or b.body is not None:
            seen.ended = "failed"
            raw = b.body if isinstance(b.body, bytes) else json.dumps(b.body).encode()
            return web.Response(status=b.status, body=raw, content_type=b.content_type)
        if not self.allowed(request):
            return self._own.wrong_key()
        tokens = tokenize(all_text(seen.body))
        refused = await self._own.admit(request, seen, tokens)
        if refused is not None:
            return refused
        slots = self.slots
        slot, seen.cached_tokens = await slots.take(tokens)
        try:
            return await self._stream(request, seen, slot)
        finally:
            slots.give_back(slot)

    async def _stream(self, request: web.Request, seen: Seen, slot: Slot) -> web.StreamResponse:
        b = seen.behaviour
        seen.slot = slot.index
        out = self._own.writer(request, seen)
        await out.open()
        if b.role_first:
            await out.begin()
        if b.held:
            await self._released.wait()
        for _ in range(b.pings):
            await asyncio.sleep(b.first_token_after / (b.pings + 1))
            await out.ping()
        await asyncio.sleep(b.first_token_after / (b.pings + 1))
        await asyncio.sleep(self.seconds_per_prompt_token * (seen.prompt_tokens - seen.cached_tokens))
        reason, room = b.finish_reason, self._own.room(seen)
        thoughts = self._own.thoughts(seen).split()
        for thought in thoughts[:room]:
            await out.think(f"{thought} ")
        room -= min(room, len(thoughts))
        words = (self.answer(seen) if b.answer is None else b.answer).split(" ")
        if len(words) > room and words != [""] and b.ending is not Ending.ENDLESS:
            words, reason = words[:room], "length"
        for index, word in enumerate(words[: b.tokens]):
            await asyncio.sleep(self.seconds_per_token * self.slower(self.slots.running) + b.per_token)
            text = word if index == 0 else f" {word}"
            if text:
                await out.say(text, padding=b.padding if index == 0 else 0)
                seen.sent_tokens += 1
        await out.end(reason)
        return out.response


def _parts(body: dict[str, Any]) -> tuple[str, str]:
    """The system text and the question of a request; in a raw prompt the question is the last paragraph."""
    if "messages" not in body:
        system, _, question = body.get("prompt", "").rpartition("\n\n")
        return system, question
    texts = {message["role"]: message["content"] for message in body["messages"]}
    return texts.get("system", ""), texts.get("user", "")


def _without_earliest(body: dict[str, Any], window: int) -> int:
    """The tokens that are left once so many of the earliest messages after the system's are dropped as it takes."""
    messages = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
    system = [message for message in messages[:-1] if message["role"] == "system"]
    others = [message for message in messages if message not in system]
    while len(others) > 1 and len(tokenize(all_text({"messages": system + others}))) >= window:
        others.pop(0)
    return len(tokenize(all_text({"messages": system + others})))


def all_text(body: dict[str, Any]) -> str:
    """Everything that the server has to read."""
    if "messages" not in body:
        return str(body.get("prompt", ""))
    return "\n".join(message["content"] for message in body["messages"])
