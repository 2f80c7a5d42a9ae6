"""What people ask about their jobs, answered by reading alone: for the command line and all that follows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from distllm.domain.models import StoredRequest
from distllm.store.reads import Reader

FEWEST_FOR_ETA = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `eta` is in seconds, None while nothing can honestly be said."""

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

    @property
    def left(self) -> int:
        """Prompts that are still to end."""
        return 0 if self.ended else self.total - self.done - self.failed - self.cancelled


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


async def progress(reader: Reader, job_id: int, now: float) -> Progress | None:
    """One job's progress, with the time it will take at the pace of the newest answers; None if there is none."""
    job = await reader.job(job_id)
    if job is None:
        return None
    pace = await _pace(reader, now)
    left = job["pending"] + job["leased"]
    return Progress(
        job_id=job_id,
        job=job["job"],
        state=job["state"],
        total=job["total"],
        done=job["done"],
        failed=job["failed"],
        cancelled=job["cancelled"],
        leased=job["leased"],
        ended=job["finished_at"] is not None,
        eta=left / pace if pace and left else None,
    )


async def _pace(reader: Reader, now: float) -> float | None:
    """Answers a second over the newest attempts of the coordinator at work."""
    recent = await reader.recent_attempts()
    if not recent["since"] or (recent["answers"] or 0) < FEWEST_FOR_ETA or now <= recent["since"]:
        return None
    return float(recent["answers"] / (now - recent["since"]))


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
