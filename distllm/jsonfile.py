"""JSON files that people write: read strictly, and complained of in one line."""

import json
from pathlib import Path
from typing import Any

from distllm.domain.errors import UsageError


def read_json_file(path: Path) -> object:
    """What a person's JSON file holds.

    Raises UsageError, with file, place and remedy, where it cannot be read, or a key stands twice in one object.
    """
    try:
        # Some editors put a byte order mark first.
        return json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; it must be a file that you may read") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}; correct it there"
        ) from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply; a few levels are enough") from None
    except _RepeatedKeyError as error:
        raise UsageError(f"{path}: the key {error} stands twice in one object; leave one out") from None


class _RepeatedKeyError(Exception):
    """JSON would silently keep the last of them."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(repr(key))
        found[key] = value
    return found
