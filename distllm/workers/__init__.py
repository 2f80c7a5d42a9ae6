"""Adapters: one a kind of LLM server, all with the same face (`Worker`).

An adapter returns an `Outcome` or a `Health` for whatever a server does and raises nothing for it; only
being cancelled passes through. Foreign errors are translated in one table (`errors`), time limits and
bounds are kept in one place (`exchange`).

Packages add kinds through the entry-point group `distllm.workers` (`kinds`, `docs/extending.md`).

Limits: text only, one answer a request. Whether a prompt was cut
is seen from the token count that the server reports, and only where more than two fifths are missing;
servers that report none leave it open. A reset before the first byte of an answer cannot be told from a
server that died over the prompt.
"""

from typing import TYPE_CHECKING

from distllm.domain.models import WorkerSpec
from distllm.workers.model_file import embedded_available, embedded_model_name

if TYPE_CHECKING:
    import aiohttp

    from distllm.workers.base import Worker

__all__ = ["embedded_available", "embedded_model_name", "make_worker"]


def make_worker(spec: WorkerSpec, session: "aiohttp.ClientSession") -> "Worker":
    """Build the adapter for the spec's kind of server; `start` makes it ready to be asked.

    Raises DistllmError where a package adds that kind, and its adapter cannot be loaded.
    """
    from distllm.workers.kinds import adapter

    return adapter(spec.type)(spec, session)
