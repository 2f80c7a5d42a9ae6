"""The kinds of server: those that distllm knows itself, and those that packages add.

A package adds one through the entry-point group `distllm.workers`: the name is the `type` of the
configuration, the value a class that is made as `Worker` is.
"""

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, assert_never

from distllm.domain.errors import DistllmError
from distllm.domain.models import WorkerType

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
    added = _added()
    if name in added:
        return name
    kinds = [*WorkerType, *added]
    close = get_close_matches(name.lower().replace("-", "_"), kinds, n=1, cutoff=0.7)
    meant = SPOKEN_OF_AS.get(name.lower()) or (close[0] if close else None)
    hint = f"; did you mean {str(meant)!r}?" if meant else ""
    raise ValueError(f"no kind of worker is called {name!r}{hint} (there are {', '.join(sorted(kinds))})")


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

    entry = _added().get(name)
    if entry is None:
        raise DistllmError(f"no installed package adds workers of the type {name!r}")
    package = entry.dist.name if entry.dist else entry.module
    try:
        found = entry.load()
    except Exception as error:
        line = f"the package {package} adds the worker type {name!r}, but cannot be loaded: {error}"
        raise DistllmError(" ".join(line.split())) from error
    if not (isinstance(found, type) and issubclass(found, Worker)):
        raise DistllmError(f"the package {package} adds the worker type {name!r}, but {entry.value} is no Worker")
    return found


def _added() -> dict[str, EntryPoint]:
    """What packages add; none can replace a kind that distllm knows itself."""
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in list(WorkerType)}
