"""Changing the workers of a configuration file, and not a character of anything else in it.

The text is cut and pasted where JSON says that a value begins and ends; what comes of it is judged as a whole
before it is written.
"""

import difflib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distllm.config.settings import Config, find_file
from distllm.domain.errors import DistllmError, UsageError

DEFAULT_FILE = Path("workers.json")

_BLANK = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


def file_to_edit(path: Path | None, *, create: bool) -> Path:
    """The configuration file in use, else the one named, else ./workers.json.

    Raises UsageError where there is none, unless it is to be created.
    """
    if create and path is not None and not path.exists():
        return path
    file = find_file(path)
    if file is None and not create:
        raise UsageError("there is no configuration file, so no worker to remove: `distllm workers add` makes one")
    # A link stays a link: what it leads to is edited.
    return DEFAULT_FILE if file is None else file.resolve() if file.is_symlink() else file


def add_worker(file: Path, worker: Mapping[str, Any]) -> None:
    """Add a worker to the file, which is made if it is missing. Raises UsageError if the result makes no sense."""
    text = _text(file)
    if text is None:
        _write(file, json.dumps({"workers": [worker]}, indent=2, ensure_ascii=False) + "\n")
        return
    config = _values(file, text)
    changed = _with_worker(text, worker)
    _judge(file, changed, config | {"workers": [*config.get("workers", ()), worker]})
    _write(file, changed)


def remove_worker(file: Path, name: str) -> None:
    """Remove the worker with this id. Raises UsageError, with the nearest one, if there is none."""
    text = _text(file)
    values = {} if text is None else _values(file, text)
    workers = list(values.get("workers", ()))
    names = [worker["id"] for worker in workers]
    if text is None or name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"{file} has no worker {name!r}: {hint}it has {', '.join(names) or 'none'}")
    place = names.index(name)
    spans = _elements(text, _workers(text))
    first, end = spans[place].start, spans[place].end
    if place + 1 < len(spans):
        end = spans[place + 1].start
    elif place:
        first = spans[place - 1].end
    else:
        whole = _workers(text)
        first, end = whole.start + 1, whole.end - 1
    changed = text[:first] + text[end:]
    _judge(file, changed, values | {"workers": workers[:place] + workers[place + 1 :]})
    _write(file, changed)


class _Span(NamedTuple):
    """Where a value stands in a text."""

    start: int
    end: int


def _text(file: Path) -> str | None:
    try:
        # As bytes, since line ends are kept as they are.
        return file.read_bytes().decode("utf-8") if file.exists() else None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None


def _values(file: Path, text: str) -> dict[str, Any]:
    """What the file says, sound before it is changed; the environment's word counts when it is used."""
    Config.load(file)
    values: dict[str, Any] = json.loads(text.removeprefix("\ufeff"))
    return values


def _judge(file: Path, text: str, expected: Mapping[str, Any]) -> None:
    Config.of(dict(expected), str(file))
    if json.loads(text.removeprefix("\ufeff")) != expected:
        raise DistllmError(f"{file} has a form that cannot be edited: change its workers by hand")


def _with_worker(text: str, worker: Mapping[str, Any]) -> str:
    members = _members(text)
    if "workers" not in members:
        listed = f'"workers": [{json.dumps(worker, ensure_ascii=False)}]'
        end = text.rindex("}")
        last = max((span.end for span in members.values()), default=None)
        return f"{text[:end]}{listed}{text[end:]}" if last is None else f"{text[:last]}, {listed}{text[last:]}"
    whole = members["workers"]
    spans = _elements(text, whole)
    if not spans:
        return f"{text[: whole.start + 1]}{json.dumps(worker, ensure_ascii=False)}{text[whole.end - 1 :]}"
    last_one = spans[-1]
    # The new one looks as its neighbour does: on lines of its own, or on one, and as far to the right.
    before = text[whole.start + 1 : spans[0].start] if len(spans) == 1 else text[spans[-2].end + 1 : last_one.start]
    shown = _like(text[last_one.start : last_one.end], worker, before)
    return f"{text[: last_one.end]},{before if before.strip(' ') else ' '}{shown}{text[last_one.end :]}"


def _like(neighbour: str, worker: Mapping[str, Any], before: str) -> str:
    inner = re.match(r"\{\r?\n([ \t]+)", neighbour)
    if inner is None:
        return json.dumps(worker, ensure_ascii=False)
    outer = before.rpartition("\n")[2]
    step = inner[1][len(outer) :] or "  "
    shown = json.dumps(worker, indent=step, ensure_ascii=False).replace("\n", f"\n{outer}")
    return shown.replace("\n", "\r\n") if "\r\n" in neighbour else shown


def _workers(text: str) -> _Span:
    return _members(text)["workers"]


def _members(text: str) -> dict[str, _Span]:
    """The values of the outermost object, by key."""
    found: dict[str, _Span] = {}
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = _decoder.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, end = _decoder.raw_decode(text, start)
        found[key] = _Span(start, end)
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _elements(text: str, whole: _Span) -> list[_Span]:
    """The elements of the list at `whole`."""
    found: list[_Span] = []
    at = _skip(text, whole.start + 1)
    while text[at] != "]":
        _, end = _decoder.raw_decode(text, at)
        found.append(_Span(at, end))
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def _write(file: Path, text: str) -> None:
    """Put the text in the file's place at once, with the file's mode."""
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask()
        with tempfile.NamedTemporaryFile("wb", prefix=f".{file.name}-", dir=file.parent, delete=False) as temporary:
            try:
                temporary.write(text.encode())
                temporary.flush()
                os.fsync(temporary.fileno())
                Path(temporary.name).chmod(mode)
                Path(temporary.name).replace(file)
            except BaseException:
                Path(temporary.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise DistllmError(f"{file} cannot be written: {error.strerror}; it is as it was") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
