"""Values out of JSON that a server sent, where anything may stand."""

from typing import Any

LARGEST_COUNT = 2**53
"""A number of tokens, or of parts of a second, beyond this is none, and no database could hold it."""


def fields(value: object) -> dict[str, Any]:
    """An object; empty if it is none."""
    return value if isinstance(value, dict) else {}


def first(value: object) -> dict[str, Any]:
    """The object that a list begins with; empty if there is none."""
    return fields(value[0]) if isinstance(value, list) and value else {}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list; empty if it is none."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def count(value: object) -> int | None:
    """A number of something; None if it is none."""
    sound = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_COUNT
    return value if sound and isinstance(value, int) else None


def seconds(value: object, each: float) -> float | None:
    """A time told in units of which one second has `each`; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LARGEST_COUNT:
        return value / each
    return None


def text(value: object) -> str:
    """A text; empty if it is none."""
    return value if isinstance(value, str) else ""
