"""Rows for the formats that are tables: one an answer, or one a document."""

from collections.abc import AsyncIterator, Sequence

from distllm.export.source import Section, Source
from distllm.store.exports import ANSWER_COLUMNS
from distllm.store.reads import Record

_FIRST = ("document", "title", "pages")
_LAST = "note"


async def long_rows(source: Source) -> AsyncIterator[list[Record]]:
    """The answers, as in the view `answers`: the rows of one section at a time."""
    async for section in source.sections():
        rows = [
            {name: prompt[name] for name in ANSWER_COLUMNS}
            for prompt in section.prompts
            if prompt["answer"] is not None
        ]
        if rows:
            yield rows


def wide_columns(questions: Sequence[Record]) -> list[str]:
    """document, title, pages, a column for each question in their order, and a note. No two are the same."""
    taken = {*_FIRST, _LAST, *(question["name"] for question in questions)}
    columns = list(_FIRST)
    for question in questions:
        name = question["name"]
        while name in (*_FIRST, _LAST) or (name != question["name"] and name in taken):
            name += "_answer"
        taken.add(name)
        columns.append(name)
    return [*columns, _LAST]


def wide_row(section: Section, questions: Sequence[Record]) -> list[Record | str | int | None]:
    """The cells of one document, in the order of `wide_columns`: a question's is its prompt, None without an answer."""
    answered = {prompt["prompt"]: prompt for prompt in section.prompts if prompt["answer"] is not None}
    answers = [answered.get(question["name"]) for question in questions]
    return [section.document, section.title, section.pages, *answers, note(section) or None]


def note(section: Section) -> str:
    """What is not as a reader of a row would expect it."""
    if section.same_as is not None:
        return f"same content as {section.same_as}"
    if section.problem is not None:
        return f"not read: {section.problem}"
    if not section.read:
        return "not read yet"
    if not section.prompts:
        return "not asked yet"
    notes = []
    for prompt in section.prompts:
        if prompt["answer"] is None:
            notes.append(f"{prompt['prompt']}: {missing(prompt)}")
        elif prompt["finish_reason"] == "length":
            notes.append(f"{prompt['prompt']}: cut at its token limit")
    return "; ".join(notes)


def missing(prompt: Record) -> str:
    """Why a prompt has no answer."""
    state = "not answered yet" if prompt["state"] in ("pending", "leased") else prompt["state"]
    return f"{state}: {prompt['error']}" if prompt["error"] else str(state)
