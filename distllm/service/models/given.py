"""What the API gives.

It may hold more than is named here: the facts of a job are those that `distllm status JOB --json` prints.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from distllm.service.models.taken import PromptState, State


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
