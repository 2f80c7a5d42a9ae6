"""What every format is made of: a job, its questions, and its files with what was asked about them."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from distllm.domain.errors import NoJobError, UsageError
from distllm.store.exports import (
    failure_pages,
    file_pages,
    loose_prompt_pages,
    prompts_of_files,
    unreadable_pages,
)
from distllm.store.reads import PAGE_ROWS, Reader, Record


@dataclass(frozen=True, slots=True)
class Section:
    """One file of a job with its prompts in the order of the questions; or one prompt about no file.

    A prompt is a dict with the columns of `answers`, and `state` and `error`; `answer` is None without one.
    `read` is false while the file was not read, `same_as` names an earlier file with the same content.
    """

    anchor: str
    document: str | None
    title: str | None
    pages: int | None
    problem: str | None
    same_as: str | None
    read: bool
    asked: str | None
    prompts: list[Record]


class Source:
    """A job to be written, read page by page.

    `states` counts the prompts that went by, by what became of them; `on_page` is told how many files or prompts
    have gone by.
    """

    def __init__(self, reader: Reader, job: Record, questions: list[Record]) -> None:
        self._reader = reader
        self.job = job
        self.questions = questions
        self.on_page: Callable[[int], None] = lambda seen: None
        self.states: Counter[str] = Counter()
        self.too_long_for_excel = 0

    async def sections(self) -> AsyncIterator[Section]:
        """Everything, in the order of submission."""
        files = max(1, PAGE_ROWS // max(1, len(self.questions)))
        seen = 0
        async for page in file_pages(self._reader, self.job["job_id"], files):
            prompts = await prompts_of_files(self._reader, self.job["job_id"], page[0]["ordinal"], page[-1]["ordinal"])
            by_file = {ordinal: list(asked) for ordinal, asked in groupby(prompts, lambda row: row["ordinal"])}
            self._count(prompts)
            for file in page:
                yield _of_file(file, by_file.get(file["ordinal"], []))
            seen += len(page)
            self.on_page(seen)
        async for page in loose_prompt_pages(self._reader, self.job["job_id"]):
            self._count(page)
            for prompt in page:
                yield _of_prompt(prompt)
            seen += len(page)
            self.on_page(seen)

    def _count(self, prompts: list[Record]) -> None:
        # An answer stands until a better one is there, also while it is asked again.
        self.states.update("done" if prompt["answer"] is not None else prompt["state"] for prompt in prompts)

    async def files(self) -> AsyncIterator[Record]:
        """The files alone: ordinal, document, title and more, for a table of contents."""
        async for page in file_pages(self._reader, self.job["job_id"]):
            for file in page:
                yield file | {"anchor": _anchor(file)}

    async def failures(self) -> AsyncIterator[Record]:
        """What has no answer and will get none: document, prompt, attempts, worker, error, failed_at."""
        async for page in failure_pages(self._reader, self.job["job_id"]):
            for failure in page:
                yield failure

    async def unreadable(self) -> AsyncIterator[Record]:
        """The files that could not be read: document, problem."""
        async for page in unreadable_pages(self._reader, self.job["job_id"]):
            for file in page:
                yield file


async def open_source(reader: Reader, job_id: int, wide: bool) -> Source:
    """A job to be written.

    Raises UsageError if there is no such job, or if it has no questions that could be columns.
    """
    job = await reader.job(job_id)
    if job is None:
        raise NoJobError(job_id)
    questions = await reader.templates(job_id)
    if wide and not questions:
        raise UsageError(f"job {job_id} has no questions that could be columns: leave --wide out")
    return Source(reader, job, questions)


def _anchor(file: Record) -> str:
    return f"d{file['ordinal'] + 1}"


def _of_file(file: Record, prompts: list[Record]) -> Section:
    return Section(
        anchor=_anchor(file),
        document=file["document"],
        title=file["title"],
        pages=file["pages"],
        problem=file["problem"],
        same_as=file["same_as"],
        read=file["document_id"] is not None,
        asked=None,
        prompts=prompts,
    )


def _of_prompt(prompt: Record) -> Section:
    return Section(
        anchor=f"p{prompt['prompt_id']}",
        document=None,
        title=None,
        pages=None,
        problem=None,
        same_as=None,
        read=True,
        asked=_asked(prompt["body"]),
        prompts=[prompt],
    )


def _asked(body: str | None) -> str | None:
    """The last message of a stored request, None where it is of another form."""
    try:
        last: Any = json.loads(body or "")["messages"][-1]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return last if isinstance(last, str) else None


def sources_of(prompt: Record) -> Iterator[str]:
    """Where an answer comes from, for people: a few words for each fact."""
    if prompt["model"]:
        yield prompt["model"]
    if prompt["worker"]:
        yield f"on {prompt['worker']}"
    if prompt["reused_from"] is not None:
        yield f"reused from job {prompt['reused_from']}"
    if prompt["attempts"]:
        yield "1 attempt" if prompt["attempts"] == 1 else f"{prompt['attempts']} attempts"
    yield f"{prompt['seconds']:.1f} s"
    tokens = [
        f"{prompt[name]:,} {what}"
        for name, what in (
            ("prompt_tokens", "tokens read"),
            ("cached_tokens", "of them cached"),
            ("completion_tokens", "written"),
        )
        if prompt[name] is not None
    ]
    if tokens:
        yield ", ".join(tokens)
    if prompt["parts"] > 1:
        yield f"from {prompt['parts']} parts"
    yield prompt["proof"]
    yield prompt["finished_at"]
