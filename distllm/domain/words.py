"""Numbers, times and names as people say them."""

from collections.abc import Mapping
from typing import Any


def span(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"


def number(value: float | None) -> str:
    """A count with thousands told apart."""
    return "" if value is None else f"{value:,.0f}"


def count(value: int, noun: str) -> str:
    """A number of things: `1 paper`, `1,200 papers`."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def failed_prompt(row: Mapping[str, Any]) -> str:
    """What a row of the view `failures` is about: a document and a question, or a prompt that has neither."""
    return ", ".join(filter(None, (row["document"], row["prompt"]))) or "a prompt of the batch"


def state_of(job: Mapping[str, Any]) -> str:
    """A job's state as people are told it."""
    state: str = job["state"] if job["submitted"] else "being built"
    return state
