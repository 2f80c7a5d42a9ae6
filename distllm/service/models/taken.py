"""What the API takes: strictly, and nothing that is not known."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from distllm.presets.schema import NO_BLANK, MaxTokens, Name, Priority, PromptEntry, Strict, Temperature

MOST_DOCUMENTS = 2_000
"""In one submission."""

MOST_QUESTIONS = 1_000
LONGEST_NAME = 255
MOST_ROWS = 500
LARGEST_NUMBER = 2**63 - 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CURSOR = re.compile(r"(-1|\d{1,18})\.\d{1,18}", re.ASCII)


def _showable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("has a character that cannot be shown: leave control characters out")
    return text


def _place(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise ValueError("is no place in a job: give the `next` of the page before")
    return text


Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_showable),
    Field(json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]+$"}),
]
Cursor = Annotated[
    str, AfterValidator(_place), Field(json_schema_extra={"pattern": r"^(-1|[0-9]{1,18})\.[0-9]{1,18}$"})
]
State = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
PromptState = Literal["pending", "leased", "done", "failed", "cancelled"]


class InlineText(Strict):
    """A document that is given as its text."""

    name: Label
    text: str


_WAYS: dict[str, JsonValue] = {
    "preset": {"type": "string"},
    "prompts": {"type": "array"},
    "questions": {"type": "array"},
}


class Submission(Strict):
    """A job to be made: `texts`, or files sent beside this, and exactly one of `preset`, `prompts` and `questions`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [way], "properties": {way: kind}} for way, kind in _WAYS.items()]}
    )

    texts: Annotated[list[InlineText], Field(max_length=MOST_DOCUMENTS, default_factory=list)]
    preset: Name | None = None
    prompts: (
        Annotated[
            list[Annotated[str, Field(json_schema_extra={"pattern": NO_BLANK})]],
            Field(min_length=1, max_length=MOST_QUESTIONS, json_schema_extra={"uniqueItems": True}),
        ]
        | None
    ) = None
    questions: (
        Annotated[
            list[PromptEntry],
            Field(min_length=1, max_length=MOST_QUESTIONS, json_schema_extra={"uniqueItems": True}),
        ]
        | None
    ) = None
    model: Label | None = None
    name: Label | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    priority: Priority = 0
    fresh: bool = False


class TextSubmission(Submission):
    """The same without files: `texts` are all that there is."""

    texts: Annotated[list[InlineText], Field(min_length=1, max_length=MOST_DOCUMENTS)]


_A_FILE: JsonValue = {"properties": {"files": {"minItems": 1}}, "required": ["files"]}
_A_TEXT: JsonValue = {"properties": {"request": {"properties": {"texts": {"minItems": 1}}, "required": ["texts"]}}}


class Upload(BaseModel):
    """A submission as a form: `request` is the submission in JSON, and each `files` is a document."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"anyOf": [_A_FILE, _A_TEXT]})

    request: Submission
    files: Annotated[
        list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]],
        Field(default_factory=list),
    ]


class Retry(Strict):
    """Which prompts are asked again: those that failed, or those whose answers were cut, with more room."""

    truncated: bool = False


class Query(BaseModel):
    """A query of a request: nothing that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobsQuery(Query):
    """Which jobs are listed: the newest, or those before `before`."""

    before: Annotated[int, Field(ge=1, le=LARGEST_NUMBER)] = LARGEST_NUMBER
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
    state: State | None = None


class ResultsQuery(Query):
    """Which answers are given: those after the `cursor` that came with the page before."""

    cursor: Cursor = "-1.0"
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
    document: Label | None = None
    prompt: Label | None = None
    state: PromptState | None = None


class FailuresQuery(Query):
    """Which failures are given: those after the `cursor` that came with the page before."""

    cursor: Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
