"""What a job would be, found by storing it in a transaction that is then rolled back: no second set of rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Integer, bindparam, cast, func, select

from distllm.domain.models import Document
from distllm.store.readings import NewReading
from distllm.store.sql import DONE, PENDING, one_of
from distllm.store.sqlite import Tx, as_list
from distllm.store.submissions import NewJob, build_prompts, create_job, save_document
from distllm.store.tables import prompts, readings, templates, worker_models, workers


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Counts of a job that was not stored.

    `reused` of its `prompts` are answered already; the others are about `readings` texts, which are
    `reading_tokens` long together, and need a context window of `longest` tokens at most. Their questions
    are `question_tokens` long, and their answers at most `answer_tokens`. `seconds` is what that takes at
    the speeds measured so far, None where none was.
    """

    prompts: int
    reused: int
    readings: int
    reading_tokens: int
    question_tokens: int
    answer_tokens: int
    longest: int
    seconds: float | None


class RehearsalOverError(Exception):
    """Carries the rehearsal out of its transaction, which is rolled back by it."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.rehearsal = rehearsal


_OF_JOB = prompts.c.job_id == bindparam("job")
_COUNTS = select(func.count(), func.coalesce(func.sum(cast(prompts.c.state == DONE, Integer)), 0)).where(_OF_JOB)
_TO_ASK = (
    select(
        func.coalesce(func.sum(templates.c.tokens), 0),
        func.coalesce(func.sum(templates.c.max_tokens), 0),
        func.coalesce(func.max(prompts.c.tokens), 0),
    )
    .join_from(prompts, templates, templates.c.id == prompts.c.template_id)
    .where(_OF_JOB, prompts.c.state == PENDING)
)
_TO_READ = select(func.count(), func.coalesce(func.sum(readings.c.tokens), 0)).where(
    readings.c.id.in_(select(prompts.c.reading_id).where(_OF_JOB, prompts.c.state == PENDING))
)
# Workers that are at work together, each at its own speed.
_SPEED = (
    select(func.sum(worker_models.c.prefill_rate), func.sum(worker_models.c.decode_rate))
    .join_from(worker_models, workers, workers.c.id == worker_models.c.worker_id)
    .where(worker_models.c.model == bindparam("model_is"), one_of(workers.c.identity, "identities"))
)


def rehearse(
    tx: Tx,
    job: NewJob,
    documents: Sequence[tuple[Document, NewReading]],
    digests: Iterable[str],
    identities: Iterable[str],
    now: float,
) -> None:
    """Store a job and count it. `identities` are the workers whose speeds count.

    Always raises RehearsalOverError, which holds the counts.
    """
    job_id = create_job(tx, replace(job, request_hash="rehearsal"), now)
    for ordinal, (document, reading) in enumerate(documents):
        save_document(tx, job_id, ordinal, document, lambda _, reading=reading: reading, now)  # type: ignore[misc]
    while not build_prompts(tx, job_id, now, digests):
        pass
    values = {"job": job_id}
    total, reused = tx.rows(_COUNTS, values)[0]
    questions, answers, longest = tx.rows(_TO_ASK, values)[0]
    texts, tokens = tx.rows(_TO_READ, values)[0]
    prefill, decode = tx.rows(_SPEED, {"model_is": job.model, "identities": as_list(identities)})[0]
    seconds = (tokens + questions) / prefill + answers / decode if prefill and decode else None
    raise RehearsalOverError(Rehearsal(total, reused, texts, tokens, questions, answers, longest, seconds))
