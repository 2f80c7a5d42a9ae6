"""What each kind of server has of its own: its paths, its lists, its refusals, and the form of its answers."""

from typing import TYPE_CHECKING

from tests.fakes.kinds.kind import Kind
from tests.fakes.kinds.lm_studio import LMStudio
from tests.fakes.kinds.ollama import Ollama
from tests.fakes.kinds.openai import OpenAI

if TYPE_CHECKING:
    from tests.fakes.server import FakeServer

KINDS = ("llamacpp", "vllm", "plain", "lm_studio", "ollama")

__all__ = ["KINDS", "Kind", "LMStudio", "Ollama", "OpenAI", "kind_of"]


def kind_of(server: "FakeServer") -> Kind:
    """The kind that a server was asked to be."""
    if server.kind not in KINDS:
        raise ValueError(f"no fake is of the kind {server.kind!r}")
    return {"ollama": Ollama, "lm_studio": LMStudio}.get(server.kind, OpenAI)(server)
