"""Markdown: the text as it stands, and the title that it names."""

import re

from distllm.documents.extract import Extract
from distllm.documents.text import extract_text

_FRONT_MATTER = re.compile(r"---\n(.*?)\n(?:---|\.\.\.)(?:\n|$)", re.DOTALL)
_TITLE_FIELD = re.compile(r"^title:[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_HEADING = re.compile(r"^ {0,3}#[ \t]+(\S.*)$")
_UNDERLINE = re.compile(r"^ {0,3}=+$")


def extract_markdown(data: bytes) -> Extract:
    """Read a Markdown file; its title is that of the front matter, else the first heading of level 1."""
    found = extract_text(data)
    return found._replace(title=_title(found.text)) if found.problem is None else found


def _title(text: str) -> str | None:
    front = _FRONT_MATTER.match(text)
    if front:
        named = _TITLE_FIELD.search(front[1])
        title = _unquote(named[1].strip()) if named else ""
        # A folded or literal block begins with its sign; its lines are not worth a YAML parser.
        if title and title[0] not in ">|":
            return title
        text = text[front.end() :]
    return _first_heading(text)


def _unquote(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1].strip() if quoted else value


def _without_closing_signs(heading: str) -> str:
    words = heading.rstrip("#")
    return words.rstrip() if words.endswith((" ", "\t")) else heading


def _first_heading(text: str) -> str | None:
    fence = above = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
            continue
        if mark:
            fence = mark[1]
        elif heading := _HEADING.match(line):
            return _without_closing_signs(heading[1])
        elif _UNDERLINE.match(line) and above.strip():
            return above.strip()
        above = "" if mark else line
    return None
