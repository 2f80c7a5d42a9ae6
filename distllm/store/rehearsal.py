"""What a job would be, found by storing it in a transaction that is then rolled back: no second set of rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, func, literal_column, select

from distllm.domain.models import Document
from distllm.domain.parts import MERGE_FRAME_TOKENS, PART_NOTE_TOKENS
from distllm.store.parts import keep_window, mark_copies, save_parts
from distllm.store.readings import NewPart, NewReading
from distllm.store.sql import DONE, PENDING, one_of
from distllm.store.submissions import NewJob, build_prompts, create_job, save_document
from distllm.store.tables import prompts, readings, templates, worker_models, workers
from distllm.store.tx import Tx, as_list


@dataclass(frozen=True, slots=True)
class NewText:
    """A document whose text is left out, what a server will read of that, and its parts if it is to be split."""

    document: Document
    reading: NewReading
    parts: Sequence[NewPart] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be read and written for the prompts that need a window of more than `above` tokens.

    The answers are expected to be as long as those that the workers gave so far, where these are shorter than they may
    be.
    """

    above: int
    read: float
    written: float


@dataclass(frozen=True, slots=True)
class Pace:
    """A worker whose speeds are known: tokens a second that it reads, and writes on each of its `seats`.

    `window` is None where it is not known.
    """

    window: int | None
    read: float
    write: float
    seats: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Counts of a job that was not stored.

    `reused` of its `prompts`, each of which is one answer, are answered already. For the others `requests` are made:
    one for each, and where they are about one of `split` documents, one for each of its `parts` and for each of the
    `merges` that put together some, before the last that makes the answer. They are about `readings` texts, which are
    `reading_tokens` long together, and need a context window of `longest` tokens at most. Their questions are
    `question_tokens` long, with the answers that are put together, and their own answers at most `answer_tokens`.
    `window` is the one that documents are split for, None where none is known. `loads` are the work for those workers
    (`pace`) whose windows are larger than each of these.
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
    loads: Sequence[Load]
    paces: Sequence[Pace]


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
# By which window a prompt needs at least: then some of the fleet cannot help with it.
_ABOVE = (*_TO_ASK, prompts.c.tokens > bindparam("above"))
_expected = func.min(templates.c.max_tokens, func.coalesce(bindparam("mean"), templates.c.max_tokens))
# What all questions about one part begin with, and all merges, is found cached.
_ASKED_ABOVE = (
    select(
        func.coalesce(
            func.sum(
                prompts.c.tokens
                - templates.c.max_tokens
                - case(
                    (prompts.c.part.is_not(None), readings.c.tokens + literal_column(f"{PART_NOTE_TOKENS}")),
                    (prompts.c.level == literal_column("0"), readings.c.tokens),
                    else_=prompts.c.waits_for * (templates.c.max_tokens - _expected)
                    + literal_column(f"{MERGE_FRAME_TOKENS}"),
                )
            ),
            literal_column("0"),
        ),
        func.coalesce(func.sum(_expected), literal_column("0")),
    )
    .join_from(prompts, templates, templates.c.id == prompts.c.template_id)
    .join(readings, readings.c.id == prompts.c.reading_id)
    .where(*_ABOVE)
)
_READ_ABOVE = select(func.coalesce(func.sum(readings.c.tokens), literal_column("0"))).where(
    readings.c.id.in_(select(prompts.c.reading_id).where(*_ABOVE, prompts.c.level == literal_column("0")))
)
_OF_FLEET = one_of(workers.c.identity, "identities")
_MEAN = select(
    func.sum(workers.c.completion_tokens) * literal_column("1.0") / func.nullif(func.sum(workers.c.succeeded), 0)
).where(_OF_FLEET)
_PACES = (
    select(
        worker_models.c.context_length,
        worker_models.c.prefill_rate,
        worker_models.c.decode_rate,
        func.coalesce(workers.c.slots, workers.c.seats, literal_column("1")),
    )
    .join_from(worker_models, workers, workers.c.id == worker_models.c.worker_id)
    .where(
        worker_models.c.model == bindparam("model_is"),
        worker_models.c.prefill_rate > literal_column("0"),
        worker_models.c.decode_rate > literal_column("0"),
        _OF_FLEET,
    )
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
    fleet = {"model_is": job.model, "identities": as_list(identities)}
    paces = [Pace(*row) for row in tx.rows(_PACES, fleet)]
    values["mean"] = tx.value(_MEAN, fleet)
    loads = [_load(tx, above, values) for above in sorted({0, *(pace.window or 0 for pace in paces)})]
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
            loads=loads,
            paces=paces,
        )
    )


def _load(tx: Tx, above: int, values: dict[str, Any]) -> Load:
    values = values | {"above": above}
    [(asked, written)] = tx.rows(_ASKED_ABOVE, values)
    return Load(above, asked + tx.value(_READ_ABOVE, values), written)
