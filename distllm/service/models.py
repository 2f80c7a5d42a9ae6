"""What the API takes and gives: these models are its schema.

What is taken is taken strictly, and nothing that is not known. What is given may hold more than is named here: the
facts of a job are those that `distllm status JOB --json` prints.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from distllm.presets.schema import MaxTokens, Name, Priority, PromptEntry, Strict, Temperature

MOST_DOCUMENTS = 2_000
"""In one submission."""

MOST_QUESTIONS = 1_000
LONGEST_NAME = 255
MOST_ROWS = 500
LARGEST_NUMBER = 2**63 - 1


def _showable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("has a character that cannot be shown: leave control characters out")
    return text


def _place(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise ValueError("is no place in a job: give the `next` of the page before")
    return text


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CURSOR = re.compile(r"(-1|\d{1,18})\.\d{1,18}", re.ASCII)

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


class Submission(Strict):
    """A job to be made: `texts`, or files sent beside this, and one of `preset`, `prompts` and `questions`."""

    texts: Annotated[list[InlineText], Field(max_length=MOST_DOCUMENTS, default_factory=list)]
    preset: Name | None = None
    prompts: Annotated[list[str], Field(min_length=1, max_length=MOST_QUESTIONS)] | None = None
    questions: Annotated[list[PromptEntry], Field(min_length=1, max_length=MOST_QUESTIONS)] | None = None
    model: Label | None = None
    name: Label | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    priority: Priority = 0
    fresh: bool = False


class Upload(BaseModel):
    """The same as a form: `request` is the submission in JSON, and each `files` is a document."""

    request: Submission
    files: list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]]


class Retry(Strict):
    """Which prompts are asked again: those that failed, or those whose answers were cut, with more room."""

    truncated: bool = False


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobsQuery(_Query):
    """Which jobs are listed: the newest, or those before `before`."""

    before: Annotated[int, Field(ge=1, le=LARGEST_NUMBER)] = LARGEST_NUMBER
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
    state: State | None = None


class ResultsQuery(_Query):
    """Which answers are given: those after the `cursor` that came with the page before."""

    cursor: Cursor = "-1.0"
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
    document: Label | None = None
    prompt: Label | None = None
    state: PromptState | None = None


class FailuresQuery(_Query):
    """Which failures are given: those after the `cursor` that came with the page before."""

    cursor: Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100


class _Given(BaseModel):
    """What is given: with all that the database tells."""

    model_config = ConfigDict(extra="allow")


class JobRow(_Given):
    """A job as the list has it. Times are ISO-8601 in UTC."""

    job_id: int
    job: str
    state: State
    total: int
    pending: int
    leased: int
    done: int
    failed: int
    cancelled: int
    started_at: str | None
    finished_at: str | None
    model: str
    preset: str | None
    submitted: int


class NotRead(_Given):
    """A file that could not be read, and why."""

    document: str
    problem: str


class Failure(_Given):
    """A prompt that failed for good."""

    document: str | None
    prompt: str | None
    attempts: int
    worker: str | None
    error: str | None
    failed_at: str | None


class Job(JobRow):
    """Where a job stands. `eta_seconds` is null while nothing can honestly be said."""

    eta_seconds: float | None
    coordinator: int | None
    rests_until: str | None
    reading: dict[str, Any] | None
    not_read: list[NotRead]
    last_failures: list[Failure]


class Submitted(Job):
    """The job that a submission made, or had made before: then it is `known`."""

    known: bool


class JobPage(BaseModel):
    """Jobs, newest first; `next` is `before` of the next page, null at the end."""

    jobs: list[JobRow]
    next: int | None


class Result(_Given):
    """One prompt and what came of it; `answer` is null while there is none."""

    prompt_id: int
    document: str | None
    title: str | None
    prompt: str | None
    state: PromptState
    error: str | None
    answer: str | None
    data: str | None
    model: str | None
    worker: str | None
    attempts: int
    finish_reason: str | None
    thinking: str | None
    proof: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    parts: int | None
    reused_from: int | None
    seconds: float | None
    finished_at: str | None


class ResultPage(BaseModel):
    """Prompts in the order of submission; `next` is the `cursor` of the next page, null at the end."""

    job_id: int
    results: list[Result]
    next: str | None


class FailurePage(BaseModel):
    """Failures in the order of submission; `next` is the `cursor` of the next page, null at the end."""

    job_id: int
    failures: list[Failure]
    next: int | None


class Paused(_Given):
    """`in_flight` prompts end; `changed` is false if the job was paused already."""

    job_id: int
    state: State
    changed: bool
    in_flight: int


class Resumed(_Given):
    """`changed` is false if the job was not paused."""

    job_id: int
    state: State
    changed: bool


class Cancelled(_Given):
    """What a cancelled job has, and keeps."""

    job_id: int
    state: State
    changed: bool
    done: int
    failed: int
    cancelled: int


class Retried(_Given):
    """How many prompts are asked `again`, and how many find no room for a longer answer and are `left`."""

    job_id: int
    again: int
    left: int
    coordinator: int | None


class Worker(_Given):
    """A worker of the configuration, or one that the database knows."""

    id: str
    type: str
    address: str
    configured: bool
    model: str | None
    healthy: bool | None
    error: str | None


class Workers(BaseModel):
    """All workers."""

    workers: list[Worker]


class PresetQuestion(BaseModel):
    """One question of a preset."""

    name: str
    text: str
    max_tokens: int


class PresetFacts(BaseModel):
    """A set of questions that can be called by name."""

    name: str
    description: str
    questions: list[PresetQuestion]


class Presets(BaseModel):
    """All sets of questions."""

    presets: list[PresetFacts]


class Service(BaseModel):
    """The service itself. `coordinating` is whether it leases prompts, or waits behind process `coordinator`."""

    version: str
    pid: int
    coordinating: bool
    coordinator: int | None
    stopping: bool
    hours: str | None
    rests_until: str | None


class Problem(BaseModel):
    """Why a request was not followed, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
