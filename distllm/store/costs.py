"""What reading costs a job, beside the least that it could: each reading once, and once what each prompt adds."""

from collections import Counter
from collections.abc import Container, Sequence

from sqlalchemy import bindparam, case, exists, func, literal_column, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.models import Usage
from distllm.store.attempts import Settlement
from distllm.store.sql import PENDING, insert_row, one_of
from distllm.store.tables import job_documents, job_readings, job_tokens, prompts, readings, templates
from distllm.store.tx import Tx, as_list

_HARDLY_A_BEGINNING = 0.5
"""Less of a prompt than this may be cached though nobody has asked about its document yet."""

_COUNTS = [column.name for column in job_tokens.columns if not column.primary_key]
_new = upsert_into(job_tokens).values({column.name: bindparam(column.name) for column in job_tokens.columns})
_COUNT = _new.on_conflict_do_update(
    index_elements=[job_tokens.c.job_id, job_tokens.c.coordinator_id],
    set_={name: job_tokens.c[name] + _new.excluded[name] for name in _COUNTS},
)
_NOTHING = dict.fromkeys(_COUNTS, 0)

# The documents of a chunk with a question that no earlier job has answered; those that are split are counted by part.
_TO_READ = (
    select(func.count(), func.coalesce(func.sum(readings.c.tokens), literal_column("0")))
    .join_from(job_documents, readings, readings.c.id == job_documents.c.reading_id)
    .where(
        job_documents.c.job_id == bindparam("job"),
        job_documents.c.ordinal >= bindparam("first_place"),
        job_documents.c.ordinal < bindparam("end_place"),
        job_documents.c.copy == literal_column("0"),
        exists().where(
            prompts.c.job_id == job_documents.c.job_id,
            prompts.c.document_id == job_documents.c.document_id,
            prompts.c.parent_id.is_(None),
            prompts.c.level == literal_column("0"),
            prompts.c.state == PENDING,
        ),
    )
)
_QUESTION = select(func.avg(templates.c.tokens)).where(templates.c.job_id == bindparam("job"))


def count_asked(tx: Tx, job_id: int, first: int, end: int, asked: int) -> None:
    """Count what is to be read for the files of a job from place `first` to `end`, of whose prompts `asked` are new."""
    if not asked:
        return
    values = {"job": job_id, "first_place": first, "end_place": end}
    [(texts, tokens)] = tx.rows(_TO_READ, values)
    questions = round(asked * tx.value(_QUESTION, values))
    counts = {"asked": asked, "readings": texts, "reading_tokens": tokens, "question_tokens": questions}
    _add(tx, job_id, counts)


# Parts, and what puts answers together, which reads these as its question.
_NEW = (
    prompts.c.job_id == bindparam("job"),
    prompts.c.id > bindparam("after"),
    prompts.c.state == PENDING,
)
_IS_PART = prompts.c.part.is_not(None)
_READ_BEFORE = case((_IS_PART, readings.c.tokens), else_=literal_column("0"))
_QUESTION_TOKENS = prompts.c.tokens - templates.c.max_tokens - _READ_BEFORE
_ASKED_OF_PARTS = (
    select(func.count(), func.coalesce(func.sum(_QUESTION_TOKENS), literal_column("0")))
    .join_from(prompts, templates, templates.c.id == prompts.c.template_id)
    .join(readings, readings.c.id == prompts.c.reading_id)
    .where(*_NEW, or_(_IS_PART, prompts.c.level > literal_column("0")))
)
_PARTS_TO_READ = select(func.count(), func.coalesce(func.sum(readings.c.tokens), literal_column("0"))).where(
    readings.c.id.in_(select(prompts.c.reading_id).where(*_NEW, _IS_PART))
)


def count_parts(tx: Tx, job_id: int, after: int) -> None:
    """Count what is to be read for the split documents of a job whose prompts are newer than prompt `after`."""
    values = {"job": job_id, "after": after}
    [(asked, questions)] = tx.rows(_ASKED_OF_PARTS, values)
    [(texts, tokens)] = tx.rows(_PARTS_TO_READ, values)
    counts = {"asked": asked, "readings": texts, "reading_tokens": tokens, "question_tokens": questions}
    _add(tx, job_id, counts)


_TOKENS = select(readings.c.id, readings.c.tokens).where(one_of(readings.c.id, "readings"))
_BEGUN = select(job_readings.c.job_id, job_readings.c.reading_id).where(
    one_of(job_readings.c.job_id, "jobs"), one_of(job_readings.c.reading_id, "readings")
)
_BEGIN = insert_row(job_readings, "job_id", "reading_id")


def count_costs(tx: Tx, ends: Sequence[Settlement], fresh: Container[int]) -> None:
    """Count what attempts read that have ended; and of those that are `fresh` answers, what they needed at least.

    `ends` are in the order in which the attempts are to be counted: the first of a reading has read it.
    """
    totals: dict[int, Counter[str]] = {}
    answers = [each for each in ends if each.sent.id in fresh and not each.sent.lease.level]
    shares = _shares(tx, answers) if answers else {}
    for each in ends:
        usage = each.outcome.usage
        counts = totals.setdefault(each.sent.lease.job_id, Counter())
        if usage.prompt_tokens is not None and usage.cached_tokens is not None:
            counts.update(read_tokens=_read(usage), found_tokens=usage.cached_tokens)
        if each.sent.id in fresh and each.sent.lease.level:
            # What a merge reads, nothing else does.
            counts.update(_needed(usage, None))
        elif each.sent.id in fresh:
            tokens, first = shares[each.sent.id]
            counts.update(begun_tokens=tokens if first else 0)
            counts.update(_needed(usage, None if first else tokens / max(each.sent.sent_tokens, tokens, 1)))
    for job_id, counts in totals.items():
        if counts:
            _add(tx, job_id, counts)


def _shares(tx: Tx, answers: Sequence[Settlement]) -> dict[int, tuple[int, bool]]:
    """By attempt, the tokens of the reading that was answered about, and whether it is the first of its job.

    Each reading is kept with the job from then on.
    """
    pairs = {each.sent.id: (each.sent.lease.job_id, each.sent.lease.reading_id) for each in answers}
    values = {
        "jobs": as_list({job_id for job_id, _ in pairs.values()}),
        "readings": as_list({reading_id for _, reading_id in pairs.values()}),
    }
    tokens: dict[int, int] = dict(tx.rows(_TOKENS, values))
    begun = set(tx.rows(_BEGUN, values))
    new = {pair: attempt_id for attempt_id, pair in reversed(pairs.items()) if pair not in begun}
    tx.many(_BEGIN, [{"job_id": job_id, "reading_id": reading_id} for job_id, reading_id in new])
    return {attempt_id: (tokens[pair[1]], new.get(pair) == attempt_id) for attempt_id, pair in pairs.items()}


def _needed(usage: Usage, shared: float | None) -> dict[str, int]:
    """What an answer needed at least, where it shares a part of its prompt, from 0 to 1, with one before it."""
    if usage.prompt_tokens is None or usage.cached_tokens is None:
        return {"untold": 1}
    if shared is None:
        # What all documents' prompts begin with is short; more was left by another job.
        hardly = usage.cached_tokens < _HARDLY_A_BEGINNING * usage.prompt_tokens
        return {"least_tokens": _read(usage) if hardly else usage.prompt_tokens}
    # The share is an estimate; what was found cached can be shared for certain.
    return {"least_tokens": min(_read(usage), round(usage.prompt_tokens * (1 - shared)))}


def _read(usage: Usage) -> int:
    return max(0, (usage.prompt_tokens or 0) - (usage.cached_tokens or 0))


def _add(tx: Tx, job_id: int, counts: dict[str, int]) -> None:
    tx.run(_COUNT, _NOTHING | {"job_id": job_id, "coordinator_id": tx.counters} | counts)
