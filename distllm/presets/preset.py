"""A preset: the questions that a job asks of every document."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distllm.domain.errors import UsageError
from distllm.domain.models import Template

MAX_TOKENS = 512
TEMPERATURE = 0.0
"""The surest answer each time, so that a run can be repeated."""

LONGEST_NAME = 48
BY_HAND = "prompts"


@dataclass(frozen=True, slots=True)
class Preset:
    """Named questions; `max_tokens` bounds the answer to each one that has no bound of its own."""

    name: str
    description: str
    templates: tuple[Template, ...]
    max_tokens: int = MAX_TOKENS
    temperature: float = TEMPERATURE


def preset_of_prompts(texts: Sequence[str]) -> Preset:
    """The preset of questions given by hand, each named after its first words.

    "What data was used?" becomes `what_data_was_used`. Raises UsageError if a text is empty or comes twice.
    """
    if not texts:
        raise UsageError("no prompt is given: give at least one with --prompt")
    templates: dict[str, Template] = {}
    seen: set[str] = set()
    for number, given in enumerate(texts, start=1):
        text = given.strip()
        if not text:
            raise UsageError(f"prompt {number} is empty: give the text of a question")
        if text in seen:
            raise UsageError(f"prompt {number} is given twice: leave one out: {_shortened(text)!r}")
        seen.add(text)
        name = _unused(_slug(text) or f"prompt_{number}", templates)
        templates[name] = Template(name, text)
    return Preset(BY_HAND, "Questions given by hand", tuple(templates.values()))


def _slug(text: str) -> str:
    """The first words of `text` as one lower-case word, cut where a word ends."""
    words = re.findall(r"\w+", text.casefold().replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", ""))
    slug = ""
    for word in words:
        longer = f"{slug}_{word}" if slug else word[:LONGEST_NAME]
        if len(longer) > LONGEST_NAME:
            break
        slug = longer
    return slug.strip("_")


def _unused(name: str, taken: dict[str, Template]) -> str:
    """`name`, or with the first number that makes it new."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
