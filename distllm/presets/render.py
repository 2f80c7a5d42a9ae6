"""What a server is sent: the document first, the question last."""

from collections.abc import Sequence

from distllm.domain.models import Template

_BEFORE = (
    "Read the document below and answer questions about it. Use only what it says; where it does not say what is "
    "asked, say so.\n\nDOCUMENT\n\n"
)
_AFTER = "\n\nEND OF DOCUMENT"
_PART_NOTE = (
    "The text above is part {part} of {parts} of a longer document. Answer from this part alone; the other parts are "
    "read separately.\n\n"
)

MERGE_SYSTEM = (
    "A long document was read in parts, and the same question was answered about each part. Make one answer of these "
    "answers. Use only what they say."
)
"""The system message of a request to put answers together."""

MERGE = (
    "Put these answers together into one answer about the whole document. Keep every fact and number, say nothing "
    "twice, leave out what only says that a part has no answer, and do not mention parts. Follow what was asked:"
)
"""How answers are put together where neither the question nor its preset says it."""


def render_system(text: str) -> str:
    """The system message that holds a document's text, or that of a part.

    It depends on the text alone: every preset and job sends the same bytes, so that a server which keeps
    what it has read need not read the document again.
    """
    return f"{_BEFORE}{text}{_AFTER}"


def render_question(template: Template) -> str:
    """The last user message: all instructions and the question."""
    return template.text


def render_part_question(template: Template, part: int, parts: int) -> str:
    """The last user message after one part of a document, counted from 1."""
    return _PART_NOTE.format(part=part, parts=parts) + render_question(template)


def render_merge(template: Template, answers: Sequence[str]) -> str:
    """The user message, after `MERGE_SYSTEM`, that puts together answers to one question, in the document's order."""
    labelled = [f"PART {number} OF {len(answers)}\n{answer}\n\n" for number, answer in enumerate(answers, start=1)]
    return "".join(labelled) + render_merge_question(template)


def render_merge_question(template: Template) -> str:
    """What stands last in `render_merge`, and has the same size whatever the answers: what to do, and the question."""
    return f"{template.merge or MERGE}\n\n{render_question(template)}"
