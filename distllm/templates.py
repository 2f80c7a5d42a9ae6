"""Templates of HTML: everything that is put into one is escaped, since all of it may be hostile."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distllm.domain.text import shown


def templates(folder: Path, **more: Any) -> Environment:
    """The templates of a folder, with `more` of Jinja's settings; a value that one lacks is an error.

    Making one and compiling its templates takes longer than filling them: keep it.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_without_controls,
        **more,
    )


def _without_controls(value: Any) -> Any:
    # What a macro has made is marked as safe, and would not be so any more.
    return shown(value) if type(value) is str else value
