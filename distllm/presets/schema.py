"""What a preset file may hold, checked by pydantic. Imported only when a file is read."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from distllm.domain.bounds import HIGHEST_PRIORITY, HOTTEST, MOST_TOKENS
from distllm.presets.preset import MAX_TOKENS, TEMPERATURE


def _joined(value: object) -> object:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value


def _sendable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return text.strip()


def _question(text: str) -> str:
    if not text:
        raise ValueError("it is empty: write the question")
    return text


def _instruction(text: str) -> str:
    if not text:
        raise ValueError("it is empty: say how answers are put together, or leave it out")
    return text


MaxTokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Temperature = Annotated[float, Field(ge=0, le=HOTTEST, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)]
Name = Annotated[str, Field(pattern=r"^\w[\w-]*$", max_length=64)]
# What is stripped is more than what `\s` means in a schema's patterns.
NO_BLANK = r"[^\s\x1c-\x1f\x85]"
_WORDS = {"type": "string", "pattern": NO_BLANK}
Text = Annotated[
    str,
    BeforeValidator(_joined),
    AfterValidator(_sendable),
    WithJsonSchema({"anyOf": [_WORDS, {"type": "array", "items": {"type": "string"}, "contains": _WORDS}]}),
]
Question = Annotated[Text, AfterValidator(_question)]
Merge = Annotated[Text, AfterValidator(_instruction)]


class Strict(BaseModel):
    """Takes nothing that it does not know, and no number for a text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PromptEntry(Strict):
    """One question; `text` and `merge` are strings, or lists of lines."""

    name: Name
    text: Question
    max_tokens: MaxTokens | None = None
    merge: Merge | None = None


class PresetFile(Strict):
    """A whole file; `name` may be left out, for a preset is called by its file's name."""

    prompts: Annotated[list[PromptEntry], Field(min_length=1)]
    name: str | None = None
    description: str = ""
    max_tokens: MaxTokens = MAX_TOKENS
    merge: Merge | None = None
    temperature: Temperature = TEMPERATURE


def first_fault(error: ValidationError, models: Sequence[type[BaseModel]]) -> str:
    """One line about the first thing that is wrong: its place, what it is, and the remedy.

    `models` are what the file is made of, from the outside in.
    """
    fault = error.errors(include_url=False)[0]
    place = _place(fault["loc"])
    match fault["type"]:
        case "extra_forbidden":
            return f"{place}: unknown key; {_remedy(fault['loc'], models)}"
        case "missing":
            return f"{place}: missing; add it"
        case "string_pattern_mismatch":
            return f"{place}: {fault['input']!r} is no name; use letters, digits, '_' and '-'"
        case "value_error":
            return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
        case "model_type":
            return f"{place}: give an object in braces, {{…}}"
        case _:
            message = fault["msg"][:1].lower() + fault["msg"][1:]
            return f"{place}: {message}, but it is {_shown(fault['input'])}"


def _place(loc: Sequence[int | str]) -> str:
    """`prompts[2].text`, counting from 0 as JSON tools do; the whole file has no place."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return path.removeprefix(".") or "the file"


def _remedy(loc: Sequence[int | str], models: Sequence[type[BaseModel]]) -> str:
    known = sorted(models[-1 if len(loc) > 1 else 0].model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, 1)
    return f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
