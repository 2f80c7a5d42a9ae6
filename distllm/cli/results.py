"""`distllm results`."""

import asyncio
import json
from textwrap import shorten
from typing import Any

from rich.padding import Padding
from rich.text import Text

from distllm.cli.screen import out, safe
from distllm.domain.errors import NoJobError, UsageError
from distllm.domain.places import DatabasePlace
from distllm.insights import OwnPrompt, Paper, own_prompts, papers
from distllm.store.reads import Reader, open_reader

_LONGEST_HEADING = 72


def show_results(db: DatabasePlace, job_id: int, document: str | None, prompt: str | None, as_json: bool) -> int:
    """Print the answers of a job, document by document."""
    return asyncio.run(_results(db, job_id, document, prompt, as_json))


async def _results(db: DatabasePlace, job_id: int, document: str | None, prompt: str | None, as_json: bool) -> int:
    async with open_reader(db) as reader:
        if await reader.job(job_id) is None:
            raise NoJobError(job_id)
        names = [row["name"] for row in await reader.templates(job_id)]
        if not names:
            return await _batch(reader, job_id, document or prompt, as_json)
        if prompt is not None and prompt not in names:
            raise UsageError(f"job {job_id} has no question {prompt!r}: it has {', '.join(names)}")
        shown = 0
        async for paper in papers(reader, job_id, document, prompt):
            shown += 1
            if as_json:
                for answer in paper.answers:
                    row = {"document": paper.document, "title": paper.title} | answer
                    out.print(json.dumps(row), soft_wrap=True)
            else:
                show_paper(paper)
        if document is not None and not shown:
            raise UsageError(f"job {job_id} has no document {document!r}: `distllm results {job_id}` shows them all")
    return 0


async def _batch(reader: Reader, job_id: int, named: str | None, as_json: bool) -> int:
    """Print the answers of a batch, whose prompts have numbers instead of names."""
    if named is not None:
        raise UsageError(f"job {job_id} is a batch: its prompts have no names, and no documents such as {named!r}")
    async for own in own_prompts(reader, job_id):
        if as_json:
            out.print(json.dumps({"number": own.number, "question": own.question} | own.answer), soft_wrap=True)
            continue
        show_own(own)
    return 0


def show_own(own: OwnPrompt) -> None:
    """Print one prompt of a batch and its answer."""
    first = shorten(safe(own.question)[: _LONGEST_HEADING * 2], _LONGEST_HEADING, placeholder="…")
    out.print()
    out.print(Text(f"{own.number}: {first}", style="bold cyan"), Text(safe(_source(own.answer)), style="dim"))
    _show_answer(own.answer)


def show_paper(paper: Paper) -> None:
    """Print the answers about one document."""
    title = f"{paper.document}: {paper.title}" if paper.title else paper.document
    out.print()
    out.rule(Text(safe(title), style="bold"), align="left")
    for answer in paper.answers:
        out.print()
        out.print(Text(safe(answer["prompt"]), style="bold cyan"), Text(safe(_source(answer)), style="dim"))
        _show_answer(answer)


def _show_answer(answer: dict[str, Any]) -> None:
    text = answer["answer"] if answer["answer"] is not None else _missing(answer)
    out.print(Padding(Text(safe(text).strip()), (0, 0, 0, 2)))


def _source(answer: dict[str, Any]) -> str:
    if answer["answer"] is None:
        return ""
    notes = [answer["model"], f"on {answer['worker']}", f"{answer['seconds']:.1f} s"]
    if answer["parts"] > 1:
        notes.append(f"from {answer['parts']} parts")
    if answer["finish_reason"] == "length":
        notes.append("cut at its token limit")
    if answer["proof"] == "unproven":
        notes.append("unproven")
    return ", ".join(notes)


def _missing(answer: dict[str, Any]) -> str:
    return f"({answer['state']}{': ' + answer['error'] if answer['error'] else ''})"
