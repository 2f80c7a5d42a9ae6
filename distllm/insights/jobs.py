"""How jobs stand, and what they found."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from distllm.balancer.forecast import Seen, Speed, Work, forecast
from distllm.domain.errors import NoJobError
from distllm.domain.hours import Hours
from distllm.domain.models import StoredRequest
from distllm.store.reads import Reader, Record
from distllm.store.served import served

NEWEST_FAILURES = 5

_FEWEST = 3
"""Fewer answers tell no pace."""

_HALF = 0.5
"""So much of what is in flight is done, on the whole."""

_ESTIMATES_OFF_BY = 2.0
"""No estimate of tokens is further off than by this factor."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `eta` is in seconds, None while nothing can honestly be said.

    `leased` counts all that is leased. `parts_done` of `parts` are answered: those of documents that no window holds,
    and what puts some of them together.
    """

    job_id: int
    job: str
    state: str
    total: int
    done: int
    failed: int
    cancelled: int
    leased: int
    ended: bool
    eta: float | None
    parts: int = 0
    parts_done: int = 0

    @property
    def left(self) -> int:
        """Prompts that are still to end."""
        return 0 if self.ended else self.total - self.done - self.failed - self.cancelled


@dataclass(frozen=True, slots=True)
class Rest:
    """A coordinator is outside of its working hours, which are written in `hours`, until then by the wall's clock."""

    hours: str
    until: datetime


@dataclass(frozen=True, slots=True)
class JobNow:
    """Where one job stands. `live` is the coordinator's process, `eta` is in seconds; None where there is none.

    `reading` is what reading cost it, None where that is not known; `rests` if its coordinator does.
    """

    job: Record
    reading: "Reading | None"
    eta: float | None
    live: int | None
    unreadable: list[Record]
    failures: list[Record]
    workers: list[Record]
    rests: Rest | None = None

    @classmethod
    def of(cls, facts: Record) -> Self:
        """The same from its facts, which say nothing of workers."""
        until = facts["rests_until"]
        return cls(
            facts,
            None if facts["reading"] is None else Reading.of(facts["reading"]),
            facts["eta_seconds"],
            facts["coordinator"],
            facts["not_read"],
            facts["last_failures"],
            [],
            None if until is None else Rest("", datetime.fromisoformat(until)),
        )

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left to be done."""
        return self.job["finished_at"] is not None

    def facts(self) -> Record:
        """The same for programs."""
        more = {
            "reading": None if self.reading is None else self.reading.facts(),
            "eta_seconds": self.eta,
            "coordinator": self.live,
            "rests_until": None if self.rests is None else self.rests.until.isoformat(),
        }
        return self.job | more | {"not_read": self.unreadable, "last_failures": self.failures}


@dataclass(frozen=True, slots=True)
class Paper:
    """One document of a job with its answers, in the order of the questions.

    An answer is a dict: prompt, answer, model, worker, finish_reason, proof, parts, seconds, state, error.
    """

    document: str
    title: str | None
    pages: int | None
    answers: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class OwnPrompt:
    """One prompt of a batch, which brought its own question, with what came of it.

    `number` is its place in the batch, from 1; `answer` has what those of a `Paper` have, and more.
    """

    number: int
    question: str
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading cost a job, in tokens as servers told them: `read` anew and `found` cached, by all attempts.

    `least` is what its answers needed: each document once, and once what each prompt adds to it. Of `untold`
    answers the server does not tell what it found cached; they are in none of the others.
    """

    read: int
    found: int
    least: int
    untold: int

    @property
    def ratio(self) -> float | None:
        """How often everything was read: 1 is the least, and below it some was cached already when the job began.

        None where not all is told.
        """
        return self.read / self.least if self.least and not self.untold else None

    @classmethod
    def of(cls, facts: Record) -> Self:
        """The same from its facts."""
        return cls(*(facts[name] for name in ("read_tokens", "cached_tokens", "least_tokens", "untold_answers")))

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "read_tokens": self.read,
            "cached_tokens": self.found,
            "least_tokens": self.least,
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "untold_answers": self.untold,
        }


async def resting(reader: Reader, now: float) -> Rest | None:
    """Whether the coordinator of a database is outside of its working hours."""
    told = served(reader.place)
    if told is None or told.hours is None or await reader.coordinator() != told.pid:
        return None
    hours = Hours.parse(told.hours)
    return None if hours.are_now(now) else Rest(told.hours, hours.next_begin(now))


async def job_now(reader: Reader, job_id: int, now: float) -> JobNow:
    """Where a job stands. Raises NoJobError if there is none."""
    job = await reader.job(job_id)
    if job is None:
        raise NoJobError(job_id)
    live = await reader.coordinator()
    return JobNow(
        job,
        await reading(reader, job_id),
        await time_left(reader, job, now) if live else None,
        live,
        await reader.unreadable(job_id),
        await reader.failures(job_id, NEWEST_FAILURES),
        await reader.workers(),
        await resting(reader, now) if job["finished_at"] is None else None,
    )


async def progress(reader: Reader, job_id: int, now: float) -> Progress | None:
    """One job's progress, with the time that what is left of it will take; None if there is no such job."""
    job = await reader.job(job_id)
    if job is None:
        return None
    return Progress(
        job_id=job_id,
        job=job["job"],
        state=job["state"],
        total=job["total"],
        done=job["done"],
        failed=job["failed"],
        cancelled=job["cancelled"],
        leased=job["leased"] + job["parts_leased"],
        ended=job["finished_at"] is not None,
        eta=await time_left(reader, job, now),
        parts=job["parts"],
        parts_done=job["parts_done"],
    )


async def reading(reader: Reader, job_id: int) -> Reading | None:
    """What reading cost a job; None before its first answer, and of jobs that an earlier distllm has made."""
    costs = await reader.costs(job_id)
    known = costs["read_tokens"] + costs["found_tokens"] + costs["untold"] > 0
    return (
        Reading(*(costs[name] for name in ("read_tokens", "found_tokens", "least_tokens", "untold"))) if known else None
    )


async def time_left(reader: Reader, job: Record, now: float) -> float | None:
    """The seconds that a job, as `Reader.job` gives it, will take; None where nothing is left or can be said."""
    prompts = job["pending"] + job["leased"] + job["parts_pending"] + job["parts_leased"]
    if not prompts:
        return None
    costs, recent = await reader.costs(job["job_id"]), await reader.recent_attempts()
    seconds = 0.0 if recent["since"] is None else max(0.0, now - recent["since"])
    if not costs["asked"]:
        # A batch, or a job that an earlier distllm has made: nobody counted its tokens, only its prompts.
        pace = recent["answers"] / seconds if recent["answers"] >= _FEWEST and seconds else None
        return prompts / pace if pace else None
    speeds = await reader.speeds(job["model"])
    written = _written(job, speeds)
    if written is None:
        return None
    question = costs["question_tokens"] / costs["asked"]
    answers = _answers(job)
    read = costs["least_tokens"] / max(1.0, costs["begun_tokens"] + answers * question)
    # Tokens as servers count them, once some have.
    scale = 1.0 if costs["untold"] or not read else min(max(read, 1 / _ESTIMATES_OFF_BY), _ESTIMATES_OFF_BY)
    papers = min(
        costs["reading_tokens"] - costs["begun_tokens"], prompts * costs["reading_tokens"] / max(1, costs["readings"])
    )
    left = Work(scale * (max(0.0, papers) + prompts * question), prompts * written)
    mean = Work(scale * (costs["reading_tokens"] / costs["asked"] + question), written)
    done = Work(recent["read"] + _HALF * recent["reading"], recent["written"] + _HALF * recent["in_flight"] * written)
    seen = Seen(recent["answers"], done, seconds) if recent["known"] else Seen(0, Work(), 0.0)
    return forecast(left, mean, [Speed(each["read"], each["write"] * each["seats"]) for each in speeds], seen)


def _written(job: Record, speeds: list[Record]) -> float | None:
    """The mean tokens of an answer: of this job, or else of all that its workers gave; None before any."""
    answers = _answers(job)
    if answers > 0:
        return float((job["completion_tokens"] or 0) / answers)
    means = [each["mean"] for each in speeds if each["mean"] is not None]
    return sum(means) / len(means) if means else None


def _answers(job: Record) -> int:
    """The answers that a job was given, those about parts among them."""
    return int(job["done"] - (job["reused"] or 0) + job["parts_done"])


async def papers(reader: Reader, job_id: int, document: str | None, prompt: str | None) -> AsyncIterator[Paper]:
    """The documents of a job with their answers, one after another; only those named, where names are given."""
    for row in await reader.documents(job_id, document):
        answers = await reader.answers(job_id, row["document_id"], prompt)
        yield Paper(row["document"], row["title"], row["pages"], answers)


async def own_prompts(reader: Reader, job_id: int) -> AsyncIterator[OwnPrompt]:
    """The prompts of a batch in their order; none of a job whose prompts are about documents."""
    number, after = 0, 0
    while page := await reader.requests(job_id, after):
        for row in page:
            number += 1
            after = row.pop("prompt_id")
            yield OwnPrompt(number, StoredRequest.from_json(row.pop("body")).question, row)
