"""One Markdown document. Answers stand in quotes, which contain whatever they open: headings, fences, HTML.

Three things that strangers' words could do are undone: tags are shown as text, images, which a viewer would fetch
from anywhere, are text too, and so are links to anything but the web, mail, and the document itself.
"""

import re
from collections.abc import AsyncIterator, Iterator

from distllm.domain.text import shown
from distllm.export.rows import missing, wide_columns, wide_row
from distllm.export.source import Section, Source, sources_of
from distllm.store.reads import Record

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# A scheme, and be it written with entities: where a link, or the definition of one, leads to no other place.
_ODD_LINK = re.compile(r"\]([(:])(?=\s*[^\s()/?#]*[:&])(?!\s*(?:https?|mailto):)", re.IGNORECASE)
# An underscore within a word means nothing.
_SPECIAL = re.compile(r"([\\`*{}\[\]#|~!&]|(?<![^\W_])_|_(?![^\W_]))")


async def markdown(source: Source, wide: bool) -> AsyncIterator[bytes]:
    """What was asked, the answers, and what has none; as one table, if wide."""
    yield _lines(_head(source))
    async for piece in _table(source) if wide else _sections(source):
        yield _lines(piece)
    async for piece in _ends(source):
        yield _lines(piece)


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _head(source: Source) -> list[str]:
    job = source.job
    lines = [f"# {_inline(job['job'])}", ""]
    facts = [f"Job {job['job_id']}", _inline(job["model"]), job["state"]]
    facts.append(f"{job['done']:,} of {job['total']:,} prompts answered")
    lines.append(" · ".join(facts))
    if job["started_at"]:
        lines[-1] += f" · started {job['started_at']}"
    if job["finished_at"]:
        lines[-1] += f" · finished {job['finished_at']}"
    if source.questions:
        lines += ["", "## Questions", ""]
        lines += [f"- **{_inline(question['name'])}**: {_inline(question['text'])}" for question in source.questions]
    return [*lines, ""]


async def _sections(source: Source) -> AsyncIterator[list[str]]:
    number = 0
    async for section in source.sections():
        number += 1
        yield [*_section(section, number), ""]


def _section(section: Section, number: int) -> Iterator[str]:
    if section.document is None:
        yield f"## Prompt {number}"
    elif section.title:
        yield f"## {_inline(section.title)}"
        yield ""
        yield f"{_inline(section.document)}{_pages(section.pages)}"
    else:
        yield f"## {_inline(section.document)}"
    if section.asked is not None:
        yield ""
        yield _quoted(section.asked)
    if section.same_as is not None:
        yield from ("", f"The same content as {_inline(section.same_as)}.")
    elif section.problem is not None:
        yield from ("", f"This file could not be read: {_inline(section.problem)}")
    elif not section.prompts:
        yield from ("", "Nothing was asked yet.")
    for prompt in section.prompts:
        yield ""
        if prompt["prompt"] is not None:
            yield from (f"### {_inline(prompt['prompt'])}", "")
        if prompt["answer"] is None:
            yield f"*{_inline(missing(prompt))}*"
            continue
        yield _quoted(prompt["answer"])
        yield ""
        if prompt["finish_reason"] == "length":
            yield from ("**Cut at its token limit.**", "")
        yield f"*{_inline(' · '.join(sources_of(prompt)))}*"


def _pages(pages: int | None) -> str:
    return "" if not pages else ", 1 page" if pages == 1 else f", {pages} pages"


async def _table(source: Source) -> AsyncIterator[list[str]]:
    columns = wide_columns(source.questions)
    yield [_row(columns), "|---" * len(columns) + "|"]
    async for section in source.sections():
        cells = wide_row(section, source.questions)
        yield [_row([_cell(cell) for cell in cells])]
    yield [""]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Record | str | int | None) -> str:
    """An answer keeps its emphasis; a pipe is an entity, since a backslash before it could be undone by another."""
    if isinstance(cell, dict):
        return _harmless(cell["answer"]).strip().replace("|", "&#124;").replace("\n", "<br>")
    return "" if cell is None else _inline(str(cell))


async def _ends(source: Source) -> AsyncIterator[list[str]]:
    title = ["## Failed", ""]
    async for row in source.failures():
        what = " / ".join(_inline(row[name]) for name in ("document", "prompt") if row[name])
        by = f", on {_inline(row['worker'])}" if row["worker"] else ""
        yield [*title, f"- {what or 'a prompt'}: {_inline(row['error'] or '')} ({_attempts(row['attempts'])}{by})"]
        title = []
    if not title:
        yield [""]
    title = ["## Not read", ""]
    async for row in source.unreadable():
        yield [*title, f"- {_inline(row['document'])}: {_inline(row['problem'])}"]
        title = []


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in _harmless(text).strip().split("\n"))


def _harmless(text: str) -> str:
    return _ODD_LINK.sub(r"]\\\1", _TAG.sub("&lt;", shown(text)).replace("![", r"!\["))


def _inline(text: str) -> str:
    """Text without any meaning to Markdown, on one line."""
    return _TAG.sub("&lt;", _SPECIAL.sub(r"\\\1", " ".join(shown(text).split()))).replace(r"\|", "&#124;")
