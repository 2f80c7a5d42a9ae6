"""What the tests of all adapters share: the adapters, a call, and limits."""

from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from distllm.domain.models import Call, Limits, WorkerSpec, WorkerType
from distllm.domain.tokens import estimate_tokens
from distllm.workers import make_worker
from distllm.workers.base import Worker
from tests.fakes import FakeServer

PAPER = "The dam broke in March, and forty houses of the lower town were lost to the river. " * 3
SHORT = Limits(first_token=0.8, between_chunks=0.6, total=1.8)
LONG = Limits(first_token=60, between_chunks=30, total=90)
REAL_CONTEXT = 1024


def call(question: str = "When did the dam break?", *, system: str = PAPER, max_tokens: int = 12) -> Call:
    tokens = estimate_tokens(system) + estimate_tokens(question)
    return Call("fake-model", system, question, max_tokens, 0.0, tokens)


@dataclass(frozen=True)
class Adapter:
    """One adapter, and the form of its requests."""

    type: WorkerType
    endpoint: str

    def __str__(self) -> str:
        return f"{self.type}-{self.endpoint}"

    @property
    def raw(self) -> bool:
        """Whether its prompts are sent without a template."""
        return self.endpoint != "chat"

    def server(self, **settings: Any) -> FakeServer:
        """A fake of the kind that it speaks to."""
        kind = "llamacpp" if self.type is WorkerType.OPENAI else str(self.type)
        return FakeServer(**{"kind": kind, "context": REAL_CONTEXT, **settings})

    def worker(self, server: FakeServer, session: aiohttp.ClientSession, **changes: Any) -> Worker:
        """A worker for a server."""
        spec = WorkerSpec("w", self.type, host=server.host, port=server.port, endpoint=self.endpoint)
        return make_worker(replace(spec, **changes), session)


ADAPTERS = [
    Adapter(WorkerType.OPENAI, "chat"),
    Adapter(WorkerType.OPENAI, "completions"),
    Adapter(WorkerType.LM_STUDIO, "chat"),
    Adapter(WorkerType.LM_STUDIO, "completions"),
    Adapter(WorkerType.OLLAMA, "chat"),
    Adapter(WorkerType.OLLAMA, "generate"),
]
