"""What a person asks for, and the job that it makes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distllm.documents import Source, path_as_text, readable
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.presets import Preset, render_merge_question, render_question
from distllm.store.submissions import NewJob, NewQuestion


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for. `max_tokens` and `temperature` override the preset's where they are given.

    A `fresh` one asks everything anew, whatever is answered already. Without `references`, those of documents that
    have to be split are not read. With a `key`, a request made again is known by it.
    """

    sources: Sequence[Source]
    preset: Preset
    model: str
    name: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    priority: int = 0
    fresh: bool = False
    references: bool = True
    key: str | None = None


def new_job(request: Request, piped: Mapping[int, str | None]) -> NewJob:
    """The job of a request; `piped` are the hashes of the sources that came through standard input."""
    files = [
        (source.name, f"stdin:{piped[i]}" if i in piped else path_as_text(source.path), source.mtime)
        for i, source in enumerate(request.sources)
    ]
    preset = request.preset
    temperature = preset.temperature if request.temperature is None else request.temperature
    questions = []
    for template in preset.templates:
        max_tokens = request.max_tokens or template.max_tokens or preset.max_tokens
        questions.append(
            NewQuestion(
                template,
                max_tokens,
                tokens=estimate_tokens(render_question(template)) + FRAME_TOKENS,
                merge_tokens=estimate_tokens(render_merge_question(template)) + FRAME_TOKENS,
            )
        )
    asked = [(each.template.name, each.template.text, each.template.merge, each.max_tokens) for each in questions]
    # A file that was changed since makes it another request.
    read = [(path, 0.0 if i in piped else mtime) for i, (_, path, mtime) in enumerate(files)]
    same = [read, asked, request.model, temperature, request.priority, request.name, request.fresh, request.references]
    return NewJob(
        name=request.name or f"{preset.name} on {_called(request.sources)}",
        preset=preset.name,
        model=request.model,
        params={"temperature": temperature},
        priority=request.priority,
        request_hash=hashlib.sha256(json.dumps(same).encode()).hexdigest(),
        questions=questions,
        files=files,
        fresh=request.fresh,
        references=request.references,
        key=request.key,
    )


def _called(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return sources[0].name
    folders = {source.path.parent.name for source in sources if not source.fleeting}
    return readable(folders.pop()) if len(folders) == 1 else f"{len(sources)} files"
