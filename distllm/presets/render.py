"""What a server is sent: the document first, the question last."""

from distllm.domain.models import Template

_BEFORE = (
    "Read the document below and answer questions about it. Use only what it says; where it does not say what is "
    "asked, say so.\n\nDOCUMENT\n\n"
)
_AFTER = "\n\nEND OF DOCUMENT"


def render_system(text: str) -> str:
    """The system message that holds a document's text.

    It depends on the text alone: every preset and job sends the same bytes, so that a server which keeps
    what it has read need not read the document again.
    """
    return f"{_BEFORE}{text}{_AFTER}"


def render_question(template: Template) -> str:
    """The last user message: all instructions and the question."""
    return template.text
