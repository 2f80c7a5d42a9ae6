"""Papers whose every sentence can be told from all others, and a server that says which it has read."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distllm.documents import find_files
from distllm.domain.clock import Clock
from distllm.intake import Request, build, create
from distllm.presets import preset_of_prompts
from distllm.store.database import Database
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

WINDOW = 1024
SENTENCES = 300
"""Ten times what the window holds."""

_MARK = re.compile(r"s\d+x\d+y")


def long_paper(number: int = 0, sentences: int = SENTENCES) -> str:
    """A paper in paragraphs of five sentences, each with a mark of its own."""
    said = [f"Sentence {mark(number, place)} tells of one thing that was measured." for place in range(sentences)]
    return "\n\n".join(" ".join(said[first : first + 5]) for first in range(0, sentences, 5))


def mark(number: int, place: int) -> str:
    """What tells a sentence from all others."""
    return f"s{number}x{place}y"


def marks_in(text: str) -> list[str]:
    """The marks of a text, in order."""
    return _MARK.findall(text)


def read_by(seen: Seen) -> str:
    """The first and the last sentence of what was read; or what was put together."""
    read = marks_in(seen.system)
    return f"{read[0]} to {read[-1]}" if read else " and ".join(marks_in(seen.question))


def server(context: int = WINDOW, **more: Any) -> FakeServer:
    """A server that answers so."""
    return FakeServer(context=context, **{"answer": read_by} | more)


async def submit(
    database: Database,
    folder: Path,
    papers: Sequence[str],
    questions: Sequence[str] = ("What was measured?",),
    *,
    window: int | None = WINDOW,
    max_tokens: int = 60,
    references: bool = True,
) -> int:
    """Store a job about papers, as `distllm submit` does, for a fleet with this largest window."""
    folder.mkdir(exist_ok=True)
    for place, text in enumerate(papers):
        (folder / f"{place}.txt").write_text(text, encoding="utf-8")

    async def weights() -> frozenset[str]:
        return frozenset()

    async def largest(model: str) -> int | None:
        return window

    request = Request(
        find_files([folder]),
        preset_of_prompts(questions),
        "fake-model",
        max_tokens=max_tokens,
        references=references,
    )
    created = await create(database, request, Clock())
    await build(database, created.job_id, lambda done, total, what: None, Clock(), weights, largest)
    return created.job_id
