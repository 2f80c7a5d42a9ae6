"""The plans of long documents: which parts a job asks about, from when they are split until its prompts are built.

The plan is the same whoever makes it, at whatever time: it follows from the window that the job remembers, its
questions, and the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, exists, func, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.store.readings import NewPart, save_reading
from distllm.store.tables import job_documents, job_parts, jobs, readings, templates
from distllm.store.tx import Tx

MOST_PARTS = 20_000
"""So many prompts about parts are written in one transaction, or those of one document."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the splitting of a job's documents follows from.

    `window` is the largest that its `model` has, None where none is known, or none was asked for yet: then it is
    still `open`. `questions` are the tokens of each, and the most of its answer; `merges` those of what puts together
    answers to it, and the same. Without `references`, those of a document are left out.
    """

    model: str
    window: int | None
    open: bool
    questions: tuple[tuple[int, int], ...]
    merges: tuple[tuple[int, int], ...]
    references: bool


_JOB = select(jobs.c.model, jobs.c.window, jobs.c.with_references, jobs.c.built, jobs.c.submitted_at).where(
    jobs.c.id == bindparam("job")
)
_QUESTIONS = (
    select(templates.c.tokens, templates.c.merge_tokens, templates.c.max_tokens)
    .where(templates.c.job_id == bindparam("job"))
    .order_by(templates.c.ordinal)
)
_KEEP = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job"),
        jobs.c.window.is_(None),
        jobs.c.built == literal_column("0"),
        jobs.c.submitted_at.is_(None),
    )
    .values(window=bindparam("tokens"))
)


def terms(tx: Tx, job_id: int) -> Terms:
    """What a job remembers of how its documents are split."""
    [(model, window, references, built, submitted_at)] = tx.rows(_JOB, {"job": job_id})
    asked = tx.rows(_QUESTIONS, {"job": job_id})
    return Terms(
        model,
        window,
        window is None and not built and submitted_at is None,
        tuple((tokens, room) for tokens, _, room in asked),
        tuple((tokens, room) for _, tokens, room in asked),
        bool(references),
    )


def keep_window(tx: Tx, job_id: int, window: int | None) -> Terms:
    """Have a job remember the window that its documents are split for, unless it remembers one already."""
    tx.run(_KEEP, {"job": job_id, "tokens": window})
    return terms(tx, job_id)


# A file with the bytes of an earlier one of its job is asked about once. The sum keeps SQLite from searching by
# the order of the files, which would read all earlier ones for each.
_earlier = job_documents.alias("earlier")
_MARK_COPIES = (
    update(job_documents)
    .where(
        job_documents.c.job_id == bindparam("job"),
        exists().where(
            _earlier.c.job_id == job_documents.c.job_id,
            _earlier.c.document_id == job_documents.c.document_id,
            _earlier.c.ordinal + literal_column("0") < job_documents.c.ordinal,
        ),
    )
    .values(copy=1)
)


def mark_copies(tx: Tx, job_id: int) -> None:
    """Find the files of a job whose bytes an earlier one has."""
    tx.run(_MARK_COPIES, {"job": job_id})


_LONG = (
    select(job_documents.c.ordinal, job_documents.c.document_id)
    .join_from(job_documents, readings, readings.c.id == job_documents.c.reading_id)
    .join(jobs, jobs.c.id == job_documents.c.job_id)
    .where(
        job_documents.c.job_id == bindparam("job"),
        job_documents.c.ordinal >= jobs.c.built,
        job_documents.c.copy == literal_column("0"),
        jobs.c.submitted_at.is_(None),
        readings.c.tokens > bindparam("longest"),
        ~exists().where(job_parts.c.job_id == job_documents.c.job_id, job_parts.c.ordinal == job_documents.c.ordinal),
    )
    .order_by(job_documents.c.ordinal)
)


def long_documents(tx: Tx, job_id: int, longest: int) -> list[tuple[int, int]]:
    """The documents of a job that are longer than `longest` tokens and not split yet, as (ordinal, document_id).

    All of its files have been read: the copies among them are found first.
    """
    mark_copies(tx, job_id)
    return [(ordinal, document_id) for ordinal, document_id in tx.rows(_LONG, {"job": job_id, "longest": longest})]


_PLACE = (
    select(jobs.c.model, job_documents.c.document_id)
    .join_from(job_documents, jobs, jobs.c.id == job_documents.c.job_id)
    .where(
        job_documents.c.job_id == bindparam("job"),
        job_documents.c.ordinal == bindparam("place"),
        job_documents.c.ordinal >= jobs.c.built,
        job_documents.c.copy == literal_column("0"),
        jobs.c.submitted_at.is_(None),
    )
)
_PLAN = (
    upsert_into(job_parts)
    .values({name: bindparam(name) for name in ("job_id", "ordinal", "part", "reading_id")})
    .on_conflict_do_nothing()
)
_READ_LESS = (
    update(job_documents)
    .where(job_documents.c.job_id == bindparam("job"), job_documents.c.ordinal == bindparam("place"))
    .values(reading_id=bindparam("reading"))
)


def save_parts(tx: Tx, job_id: int, ordinal: int, parts: Sequence[NewPart]) -> None:
    """Plan the parts of a document of a job; nothing happens if its prompts are built, or the job is cancelled.

    If one part holds all that is to be read, the document is that part for this job.
    """
    for model, document_id in tx.rows(_PLACE, {"job": job_id, "place": ordinal}):
        found = [save_reading(tx, model, document_id, part) for part in parts]
        if len(found) == 1:
            tx.run(_READ_LESS, {"job": job_id, "place": ordinal, "reading": found[0]})
        else:
            rows = enumerate(found, start=1)
            tx.many(
                _PLAN,
                ({"job_id": job_id, "ordinal": ordinal, "part": part, "reading_id": reading} for part, reading in rows),
            )


_SIZES = (
    select(job_parts.c.ordinal, func.count())
    .where(
        job_parts.c.job_id == bindparam("job"),
        job_parts.c.ordinal >= bindparam("first_place"),
        job_parts.c.ordinal < bindparam("end_place"),
    )
    .group_by(job_parts.c.ordinal)
    .order_by(job_parts.c.ordinal)
)


def end_of_chunk(tx: Tx, job_id: int, first: int, end: int) -> int:
    """The place before which the documents from `first` on have few enough parts to be built in one transaction."""
    sizes = tx.rows(_SIZES, {"job": job_id, "first_place": first, "end_place": end})
    asked = len(tx.rows(_QUESTIONS, {"job": job_id})) if sizes else 0
    total = 0
    for ordinal, parts in sizes:
        total += parts * asked
        if total > MOST_PARTS:
            return max(int(ordinal), first + 1)
    return end
