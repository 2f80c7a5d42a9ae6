"""`distllm results`."""

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.text import Text

from distllm.cli.screen import out, safe
from distllm.domain.errors import UsageError
from distllm.insights import Paper, papers
from distllm.store.reads import open_reader


def show_results(db: Path, job_id: int, document: str | None, prompt: str | None, as_json: bool) -> int:
    """Print the answers of a job, document by document."""
    return asyncio.run(_results(db, job_id, document, prompt, as_json))


async def _results(db: Path, job_id: int, document: str | None, prompt: str | None, as_json: bool) -> int:
    async with open_reader(db) as reader:
        if await reader.job(job_id) is None:
            raise UsageError(f"there is no job {job_id}: `distllm status` lists them")
        names = [row["name"] for row in await reader.templates(job_id)]
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
                _show(paper)
        if document is not None and not shown:
            raise UsageError(f"job {job_id} has no document {document!r}: `distllm results {job_id}` shows them all")
    return 0


def _show(paper: Paper) -> None:
    title = f"{paper.document}: {paper.title}" if paper.title else paper.document
    out.print()
    out.rule(Text(safe(title), style="bold"), align="left")
    for answer in paper.answers:
        out.print()
        out.print(Text(safe(answer["prompt"]), style="bold cyan"), Text(safe(_source(answer)), style="dim"))
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
