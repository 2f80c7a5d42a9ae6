"""Real llama.cpp servers, and what they themselves say they read."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any, NamedTuple

from benchmarks.processes import Server, serving
from benchmarks.prompts import Prompt

MODULE = "tests.llama_server"


class Work(NamedTuple):
    """What a server did, as it counts it: tokens read anew and written, and the seconds that took."""

    read: float = 0
    read_seconds: float = 0
    written: float = 0
    written_seconds: float = 0

    @property
    def reading_rate(self) -> float:
        """Tokens read a second."""
        return self.read / self.read_seconds if self.read_seconds else 0.0

    @property
    def writing_rate(self) -> float:
        """Tokens written a second."""
        return self.written / self.written_seconds if self.written_seconds else 0.0

    def since(self, before: "Work") -> "Work":
        """What was done after `before`."""
        return Work(*(now - then for now, then in zip(self, before, strict=True)))


_NAMES = ("prompt_tokens_total", "prompt_seconds_total", "tokens_predicted_total", "tokens_predicted_seconds_total")


@contextmanager
def llama_servers(count: int, context: int) -> Iterator[list[Server]]:
    """So many new servers of one slot and one thread each, which have the model in memory and nothing cached."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(MODULE, "--context", context)) for _ in range(count)]
        for server in servers:
            warm_up(server.port)
        yield servers


def warm_up(port: int) -> None:
    """Have a server use its model once."""
    _post(port, "/completion", {"prompt": "1, 2, 3,", "n_predict": 2, "cache_prompt": False})


def model_of(port: int) -> str:
    """What a server calls its model."""
    name: str = json.loads(_get(port, "/v1/models"))["data"][0]["id"]
    return name


def work_of(port: int) -> Work:
    """What a server has done since it was started."""
    told = dict(line.split(" ") for line in _get(port, "/metrics").decode().splitlines() if not line.startswith("#"))
    return Work(*(float(told[f"llamacpp:{name}"]) for name in _NAMES))


def fewest_tokens(port: int, prompts: Sequence[Prompt], workers: int) -> int:
    """The tokens that `workers` must read for all prompts: each document once, and each question once.

    The beginning that all prompts share is counted once for each worker.
    """
    shelf: dict[str, list[list[int]]] = {}
    for prompt in prompts:
        shelf.setdefault(prompt.system, []).append(_tokens(port, prompt))
    total = 0
    for asked in shelf.values():
        document = _common(asked)
        total += document + sum(len(tokens) - document for tokens in asked)
    shared = _common([tokens for asked in shelf.values() for tokens in asked])
    return total - shared * max(0, len(shelf) - workers)


def _tokens(port: int, prompt: Prompt) -> list[int]:
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.question}]
    text = _post(port, "/apply-template", {"messages": messages})["prompt"]
    tokens: list[int] = _post(port, "/tokenize", {"content": text, "add_special": True, "parse_special": True})[
        "tokens"
    ]
    return tokens


def tokens_of(port: int, prompt: Prompt) -> int:
    """The tokens of a prompt with all that the model's template puts around it."""
    return len(_tokens(port, prompt))


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
        body: bytes = response.read()
    return body


def _post(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as response:
        told: dict[str, Any] = json.load(response)
    return told
