"""The kinds of server: those that distllm knows itself, and those that packages add.

A package adds one through the entry-point group `distllm.workers`: the name is the `type` of the
configuration, the value a class that is made as `Worker` is.
"""

from typing import TYPE_CHECKING, assert_never

from distllm.domain.errors import DistllmError
from distllm.domain.models import WorkerType
from distllm.plugins import installed, load, suggestion

if TYPE_CHECKING:
    from distllm.workers.base import Worker

GROUP = "distllm.workers"

DEFAULT_PORTS = {
    WorkerType.OLLAMA: 11434,
    WorkerType.LM_STUDIO: 1234,
    WorkerType.OPENAI: None,
    WorkerType.EMBEDDED: 0,
}
"""Where the kinds that distllm knows itself listen."""

SPOKEN_OF_AS = {
    "llama.cpp": WorkerType.OPENAI,
    "llamacpp": WorkerType.OPENAI,
    "llama-server": WorkerType.OPENAI,
    "vllm": WorkerType.OPENAI,
    "mlx": WorkerType.OPENAI,
    "mlx-lm": WorkerType.OPENAI,
    "mlx_lm": WorkerType.OPENAI,
}
"""Servers that people know by another name than that of their API."""


def find_kind(name: str) -> WorkerType | str:
    """The kind of this name, without loading anything of it.

    Raises ValueError with a line for people: what there is, and what was probably meant.
    """
    if name in list(WorkerType):
        return WorkerType(name)
    added = installed(GROUP)
    if name in added:
        return name
    meant = SPOKEN_OF_AS.get(name.lower())
    hint = f"{str(meant)!r} speaks to it" if meant else suggestion(name, [*WorkerType, *added])
    raise ValueError(f"no kind of worker is called {name!r}: {hint}")


def default_port(kind: WorkerType | str) -> int | None:
    """Where servers of this kind listen if no port is named; None if one must be, 0 if they have none.

    Raises DistllmError as `adapter` does.
    """
    # Known without loading an adapter, and with it an HTTP client.
    return DEFAULT_PORTS[kind] if isinstance(kind, WorkerType) else adapter(kind).default_port


def adapter(kind: WorkerType | str) -> "type[Worker]":
    """The class that speaks to servers of this kind.

    Raises DistllmError where a package adds the kind, and what it names cannot be used.
    """
    if not isinstance(kind, WorkerType):
        return _load(kind)
    match kind:
        case WorkerType.OLLAMA:
            from distllm.workers.ollama import OllamaWorker

            return OllamaWorker
        case WorkerType.LM_STUDIO:
            from distllm.workers.lm_studio import LMStudioWorker

            return LMStudioWorker
        case WorkerType.OPENAI:
            from distllm.workers.openai import OpenAIWorker

            return OpenAIWorker
        case WorkerType.EMBEDDED:
            from distllm.workers.embedded import EmbeddedWorker

            return EmbeddedWorker
        case unknown:
            assert_never(unknown)


def _load(name: str) -> "type[Worker]":
    from distllm.workers.base import Worker

    found = load(GROUP, name)
    if not (isinstance(found, type) and issubclass(found, Worker)):
        raise DistllmError(f"a package adds the worker type {name!r}, but {found!r} is no Worker; mend or remove it")
    return found
