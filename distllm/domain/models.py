"""The values that the rooms of distllm hand each other. All are frozen; none does input or output."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

Extra = tuple[tuple[str, object], ...]
"""Fields of a request as (name, value)."""


@dataclass(frozen=True, slots=True)
class Document:
    """One input text as it was read from a file.

    `sha256` is the hash of the file's bytes, and of those of all files that it takes in; None where they
    could not be read. `problem` says why there is no text, else None. `pages` is None for kinds that have
    none.
    """

    sha256: str | None
    text: str
    title: str | None
    pages: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """One question: its name, and the text that stands last in every prompt made from it.

    `max_tokens` bounds its answer; None leaves that to the job. `merge` says how the answers about the parts of
    one long document are put together; None leaves that to distllm.
    """

    name: str
    text: str
    max_tokens: int | None = None
    merge: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a server: what it must read first, and the question last.

    `system` is the whole system message, byte for byte the same for every question about one reading;
    empty where a prompt has none. `turns` are messages between the two, as (role, text). `tokens` is the
    estimate, from above, of all that is sent; `max_tokens` bounds the answer. `extra` are further fields of the
    request, by OpenAI's names. `hear` is told the text, and the thinking, of each piece of the answer as it comes.
    """

    model: str
    system: str
    question: str
    max_tokens: int
    temperature: float
    tokens: int
    turns: tuple[tuple[str, str], ...] = ()
    extra: Extra = ()
    hear: Callable[[str, str], object] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What a prompt without a template asks, as it is stored with it: all but the model and the system message.

    `copy` counts the same prompts before it in its batch, each of which wants an answer of its own. `extra` are those
    of its call.
    """

    question: str
    max_tokens: int
    temperature: float
    turns: tuple[tuple[str, str], ...] = ()
    copy: int = 0
    extra: Extra = ()

    def to_json(self) -> str:
        """As it is stored: the same request is the same text."""
        stored = {
            "messages": [{"role": role, "content": said} for role, said in (*self.turns, ("user", self.question))],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        more: dict[str, object] = {"copy": self.copy} if self.copy else {}
        if self.extra:
            more["extra"] = dict(self.extra)
        return json.dumps(stored | more)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        stored = json.loads(text)
        *turns, last = ((message["role"], message["content"]) for message in stored["messages"])
        extra = tuple(stored.get("extra", {}).items())
        return cls(last[1], stored["max_tokens"], stored["temperature"], tuple(turns), stored.get("copy", 0), extra)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one call may take, in seconds: until its first token, between chunks, and in all."""

    first_token: float
    between_chunks: float
    total: float


class WorkerType(StrEnum):
    """The kinds of server that distllm speaks to by itself; packages may add others."""

    OLLAMA = "ollama"
    LM_STUDIO = "lm_studio"
    OPENAI = "openai"
    EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One configured server, as plain values.

    `type` is a `WorkerType`, or the name of a kind that a package adds. `model` is None where any of the
    server's models may be used; `slots` and `context_length` are None where the server is to be asked. `path`
    is the model file of an embedded worker. `extra` are request fields passed through as (name, value) pairs.
    """

    name: str
    type: WorkerType | str
    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 0
    endpoint: str = "chat"
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    slots: int | None = None
    context_length: int | None = None
    path: str | None = None
    extra: tuple[tuple[str, object], ...] = ()


class ErrorClass(StrEnum):
    """Why an attempt gave no answer; `domain.policy` says what follows.

    `REFUSED` is a server that could not be reached, `LOST` one that went down with the request in flight, so
    that nobody knows which of its requests was to blame.
    """

    INPUT = "input"
    SETUP = "setup"
    BUSY = "busy"
    REFUSED = "refused"
    BROKEN = "broken"
    CUT_INPUT = "cut input"
    LOST = "lost"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server says that one request cost it; None where it does not tell.

    `prompt_tokens` counts all that was read, `cached_tokens` the part of it that the prefix cache held.
    Times are seconds; `load_seconds` is how long the model took until it was loaded, near 0 if it was already.
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    load_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call. Adapters return it always and raise for nothing that a server does.

    An answer has `error_class` None and a `finish_reason` (`stop` or `length`). `seconds` is the whole
    request, `first_token_seconds` the time until the first token, None if none came. `writing_seconds` is the time
    that its tokens took to come, by the clock of the stream; None where they came in too few pieces to tell. `window`
    is the context window that the call met, where the server told it only after it had loaded the model.
    """

    error_class: ErrorClass | None
    error: str | None
    answer: str
    thinking: str | None
    finish_reason: str | None
    model: str | None
    usage: Usage
    seconds: float
    first_token_seconds: float | None
    writing_seconds: float | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One model that a worker has, with its context window in tokens, None where nobody tells it.

    `loaded` is None where the server does not say. `digest` tells the very weights, where the server tells
    it: the same name may mean others tomorrow. `window_told` is false where the window is only what the
    configuration says, which proves nothing of what the server does. `also` are further names that the server
    takes for the model.
    """

    model: str
    context_length: int | None
    loaded: bool | None = None
    window_told: bool = True
    digest: str | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe of a worker found. `slots` is None where the server does not tell them."""

    healthy: bool
    offers: tuple[Offer, ...] = ()
    slots: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second that a worker reads (prefill) and writes (decode) with one model; None until learnt.

    `load` is how many seconds it took to load it last.
    """

    prefill: float | None = None
    decode: float | None = None
    load: float | None = None


@dataclass(frozen=True, slots=True)
class Paper:
    """A reading with prompts that nobody has taken: tokens to read, how many prompts, and the window they need."""

    tokens: int
    prompts: int
    needs: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What one seat of a worker wants: at most `limit` prompts of one reading.

    `windows` are the models that jobs may name for this worker, each with the tokens its context window
    holds. `reading` is tried first, so that a seat goes on with what it has read; else it gets a new one,
    which no other seat holds unless `shared`, and which needs no window above `longest`. `patience` is how long, in
    seconds, a prompt that failed on this worker is left to others before it is taken again.
    """

    worker_id: int
    windows: Mapping[str, int]
    limit: int
    reading: int | None = None
    shared: bool = False
    patience: float = 0.0
    longest: int | None = None
