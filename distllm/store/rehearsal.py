"""What a job would be, found by storing it in a transaction that is then rolled back: no second set of rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, and_, bindparam, case, func, literal_column, select

from distllm.domain.models import Document
from distllm.store.parts import keep_window, mark_copies, save_parts
from distllm.store.readings import NewPart, NewReading
from distllm.store.sql import DONE, PENDING, one_of
from distllm.store.sqlite import Tx, as_list
from distllm.store.submissions import NewJob, build_prompts, create_job, save_document
from distllm.store.tables import prompts, readings, templates, worker_models, workers


@dataclass(frozen=True, slots=True)
class NewText:
    """A document whose text is left out, what a server will read of that, and its parts if it is to be split."""

    document: Document
    reading: NewReading
    parts: Sequence[NewPart] = ()


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Counts of a job that was not stored.

    `reused` of its `prompts`, each of which is one answer, are answered already. For the others `requests` are made:
    one for each, and where they are about one of `split` documents, one for each of its `parts` and for each of the
    `merges` that put together some, before the last that makes the answer. They are about `readings` texts, which are
    `reading_tokens` long together, and need a context window of `longest` tokens at most. Their questions are
    `question_tokens` long, with the answers that are put together, and their own answers at most `answer_tokens`.
    `seconds` is what that takes at the speeds measured so far, None where none was. `window` is the one that
    documents are split for, None where none is known.
    """

    prompts: int
    reused: int
    requests: int
    split: int
    parts: int
    merges: int
    window: int | None
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
_TO_ASK = (_OF_JOB, prompts.c.state == PENDING)


def _number(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(and_(*conditions))


_COUNTS = select(
    _number(prompts.c.parent_id.is_(None)),
    _number(prompts.c.parent_id.is_(None), prompts.c.state == DONE),
    _number(prompts.c.state == PENDING),
    func.count(prompts.c.document_id.distinct()).filter(prompts.c.level > literal_column("0")),
    _number(prompts.c.part.is_not(None)),
    _number(prompts.c.parent_id.is_not(None), prompts.c.level > literal_column("0")),
).where(_OF_JOB)
_TOKENS = (
    select(
        func.coalesce(
            func.sum(
                prompts.c.tokens - templates.c.max_tokens - case((prompts.c.level == 0, readings.c.tokens), else_=0)
            ),
            0,
        ),
        func.coalesce(func.sum(templates.c.max_tokens), 0),
        func.coalesce(func.max(prompts.c.tokens), 0),
    )
    .join_from(prompts, templates, templates.c.id == prompts.c.template_id)
    .join(readings, readings.c.id == prompts.c.reading_id)
    .where(*_TO_ASK)
)
# What puts answers together reads no document.
_TO_READ = select(func.count(), func.coalesce(func.sum(readings.c.tokens), 0)).where(
    readings.c.id.in_(select(prompts.c.reading_id).where(*_TO_ASK, prompts.c.level == literal_column("0")))
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
    texts: Sequence[NewText],
    window: int | None,
    digests: Iterable[str],
    identities: Iterable[str],
    now: float,
) -> None:
    """Store a job and count it. `identities` are the workers whose speeds count.

    Always raises RehearsalOverError, which holds the counts.
    """
    job_id = create_job(tx, replace(job, request_hash="rehearsal"), now)
    for ordinal, text in enumerate(texts):
        save_document(tx, job_id, ordinal, text.document, lambda _, text=text: text.reading, now)  # type: ignore[misc]
    keep_window(tx, job_id, window)
    mark_copies(tx, job_id)
    for ordinal, text in enumerate(texts):
        if text.parts:
            save_parts(tx, job_id, ordinal, text.parts)
    while not build_prompts(tx, job_id, now, digests):
        pass
    values = {"job": job_id}
    total, reused, requests, split, parts, merges = tx.rows(_COUNTS, values)[0]
    questions, answers, longest = tx.rows(_TOKENS, values)[0]
    found, tokens = tx.rows(_TO_READ, values)[0]
    prefill, decode = tx.rows(_SPEED, {"model_is": job.model, "identities": as_list(identities)})[0]
    seconds = (tokens + questions) / prefill + answers / decode if prefill and decode else None
    raise RehearsalOverError(
        Rehearsal(
            prompts=total,
            reused=reused,
            requests=requests,
            split=split,
            parts=parts,
            merges=merges,
            window=window,
            readings=found,
            reading_tokens=tokens,
            question_tokens=questions,
            answer_tokens=answers,
            longest=longest,
            seconds=seconds,
        )
    )
