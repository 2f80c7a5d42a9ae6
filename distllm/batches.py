"""Prompts from a program into a job: each a text or a conversation, with an answer of its own.

They pass through a file on their way, so that the whole batch is known by its hash before any of it is
stored: the same batch submitted again is found, and one of a million prompts never lies in memory (a
hash of each does, to tell those that come twice).
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

from distllm.domain.clock import Clock
from distllm.domain.models import Extra, StoredRequest
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.store.control import retry_some
from distllm.store.database import Database
from distllm.store.requests import CHUNK_REQUESTS, NewBatch, NewRequest, add_requests, open_batch, submit_batch

Message = Mapping[str, str]
Prompt = str | Sequence[Message]
Prompts = Iterable[Prompt] | AsyncIterable[Prompt]

LONG_SYSTEM_TOKENS = 500
"""A system message from this length on is read once for all prompts that share it, by one seat after another."""

LARGEST_IN_MEMORY = 2**20
LARGEST_CHUNK = 2**21
"""Bytes of prompts after which a transaction is full."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt: its system message, or empty, the turns after it as (role, text), and the last question.

    `copy` counts the same prompts before it: one that is asked ten times wants ten answers, from ten seats.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    question: str
    copy: int = 0

    @classmethod
    def of(cls, prompt: Prompt, index: int) -> Self:
        """Understand a prompt. Raises ValueError that names its index if it cannot be asked."""
        if isinstance(prompt, str):
            messages: list[tuple[str, str]] = [("user", prompt)]
        elif isinstance(prompt, Sequence):
            messages = [_message(message, f"prompts[{index}][{place}]") for place, message in enumerate(prompt)]
        else:
            raise ValueError(f"prompts[{index}]: a prompt is a text or a list of messages, not {type(prompt).__name__}")
        if not messages or messages[-1][0] != "user":
            raise ValueError(f"prompts[{index}]: the last message must be the user's, which is to be answered")
        *before, (_, question) = messages
        system = before.pop(0)[1] if before and before[0][0] == "system" else ""
        if not question.strip():
            raise ValueError(f"prompts[{index}]: is empty; give a question")
        try:
            "".join((system, *(text for _, text in before), question)).encode()
        except UnicodeEncodeError:
            raise ValueError(f"prompts[{index}]: half of a surrogate pair is no character") from None
        return cls(system, tuple(before), question)

    def line(self) -> bytes:
        """As a line of a file; the same prompt is the same line."""
        return json.dumps([self.system, self.turns, self.question, self.copy]).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what `line` made."""
        system, turns, question, copy = json.loads(line)
        return cls(system, tuple((role, text) for role, text in turns), question, copy)


def _message(message: object, place: str) -> tuple[str, str]:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise ValueError(f'{place}: a message is {{"role": …, "content": …}}, and no more')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ValueError(f"{place}: the role must be one of {', '.join(ROLES)}, not {role!r}")
    if not isinstance(content, str):
        raise ValueError(f"{place}: the content must be a text, not {type(content).__name__}")
    return role, content


class Spool:
    """Prompts in the order they came, on disk where they are many, and the hash of them all."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=LARGEST_IN_MEMORY, mode="w+b")  # noqa: SIM115 - closed on exit
        self._hash = hashlib.sha256()
        self._seen: dict[bytes, int] = {}
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    async def take(self, prompts: Prompts) -> None:
        """Take in all prompts. Raises TypeError or ValueError for what is none, and what their iterator raises."""
        if isinstance(prompts, str | bytes | Mapping):
            raise TypeError(f"prompts must be a list of prompts, not one {type(prompts).__name__}")
        async for prompt in _each(prompts):
            asked = Asked.of(prompt, self.count)
            line = replace(asked, copy=self._copies(asked.line())).line()
            self._hash.update(line)
            self._file.write(line)
            self.count += 1
            if self.count % CHUNK_REQUESTS == 0:
                await asyncio.sleep(0)

    def _copies(self, line: bytes) -> int:
        key = hashlib.blake2b(line, digest_size=8).digest()
        before = self._seen.get(key, 0)
        self._seen[key] = before + 1
        return before

    def digest(self) -> str:
        """The hash of all prompts in their order."""
        return self._hash.hexdigest()

    def chunks(self) -> Iterator[list[Asked]]:
        """All prompts again, in lists of the size of a transaction."""
        self._file.seek(0)
        chunk: list[Asked] = []
        size = 0
        for line in self._file:
            chunk.append(Asked.from_line(line))
            size += len(line)
            if len(chunk) == CHUNK_REQUESTS or size >= LARGEST_CHUNK:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


async def _each(prompts: Prompts) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a batch is asked with. A `fresh` one is the same as no other, and asks everything anew."""

    model: str
    max_tokens: int
    temperature: float
    name: str | None = None
    priority: int = 0
    fresh: bool = False


async def store_batch(
    database: Database, spool: Spool, request: BatchRequest, digests: Collection[str], clock: Clock
) -> int:
    """Store the prompts of a batch as a job that can be worked; return its id.

    The same batch made before is the same job, in which only what has no answer is asked; a prompt that
    another batch asked gets the answer that exists. `digests` are the weights that the fleet has.
    """
    nonce = uuid.uuid4().hex if request.fresh else None
    same = [spool.digest(), request.model, request.max_tokens, request.temperature, nonce]
    batch = NewBatch(
        name=request.name or f"batch of {spool.count} prompt{'' if spool.count == 1 else 's'}",
        model=request.model,
        params={"temperature": request.temperature, "max_tokens": request.max_tokens},
        priority=request.priority,
        key=f"batch {hashlib.sha256(json.dumps(same).encode()).hexdigest()}",
        fresh=request.fresh,
    )
    job_id, written = await database.write(lambda tx: open_batch(tx, batch, digests, clock.now()))
    if written:
        while await database.write(lambda tx: retry_some(tx, job_id, clock.now())):
            pass
        return job_id
    first = 0
    chunks = spool.chunks()
    # Estimating the tokens of long prompts takes its time: beside the event loop.
    while requests := await asyncio.to_thread(_next_chunk, chunks, request):
        now = clock.now()
        await database.write(
            partial(add_requests, job_id=job_id, first=first, requests=requests, digests=digests, now=now)
        )
        first += len(requests)
    await database.write(lambda tx: submit_batch(tx, job_id, clock.now()))
    return job_id


def _next_chunk(chunks: Iterator[list[Asked]], request: BatchRequest) -> list[NewRequest]:
    return [new_request(asked, request.max_tokens, request.temperature) for asked in next(chunks, [])]


def new_request(asked: Asked, max_tokens: int, temperature: float, extra: Extra = ()) -> NewRequest:
    """A prompt as it is stored: a long system message is its reading, which others share."""
    system_tokens = _system_tokens(asked.system)
    texts = (*(text for _, text in asked.turns), asked.question)
    own_tokens = sum(estimate_tokens(text) + FRAME_TOKENS for text in texts)
    # A reading is worked by one seat at a time: what is short is read again rather than waited for.
    shared = system_tokens >= LONG_SYSTEM_TOKENS
    own = f"request {hashlib.sha256(asked.line()).hexdigest()}"
    return NewRequest(
        prefix_hash=hashlib.sha256(asked.system.encode()).hexdigest() if shared else own,
        system=asked.system,
        reading_tokens=system_tokens if shared else system_tokens + own_tokens,
        tokens=system_tokens + own_tokens + max_tokens,
        max_tokens=max_tokens,
        body=StoredRequest(asked.question, max_tokens, temperature, asked.turns, asked.copy, extra).to_json(),
    )


@lru_cache(maxsize=8)
def _system_tokens(system: str) -> int:
    return estimate_tokens(system) + FRAME_TOKENS if system else 0
