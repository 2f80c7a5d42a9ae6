"""From files to text: which files a submission means, and what they say.

Its limits: a scan has no text and is refused, since no characters are recognised here. Tables and displayed
equations of a PDF come out as the words in them, row by row, without their grid; figures come out as the
labels in them. Columns are told apart by geometry alone, so a page that is laid out like a poster may be
read in a wrong order. Kinds are told by a file's suffix, and by its first bytes where that is unknown.

Names are loaded when they are first used: a child process imports this package too, and must not pay for
what only its parent needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distllm.documents.files import Source, copied_stdin, find_files, path_as_text, path_of_text, readable
    from distllm.documents.kinds import KINDS, Kind
    from distllm.documents.reader import DocumentReader

__all__ = [
    "KINDS",
    "DocumentReader",
    "Kind",
    "Source",
    "copied_stdin",
    "find_files",
    "path_as_text",
    "path_of_text",
    "readable",
]

_HOMES = {
    "KINDS": "distllm.documents.kinds",
    "Kind": "distllm.documents.kinds",
    "DocumentReader": "distllm.documents.reader",
    "Source": "distllm.documents.files",
    "copied_stdin": "distllm.documents.files",
    "find_files": "distllm.documents.files",
    "path_as_text": "distllm.documents.files",
    "path_of_text": "distllm.documents.files",
    "readable": "distllm.documents.files",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
