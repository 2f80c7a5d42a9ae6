"""Answers that exist already: only what changed is asked, where the same question was answered before."""

from collections.abc import Iterable

from sqlalchemy import (
    FromClause,
    Insert,
    ScalarSelect,
    and_,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)

from distllm.store.sql import DONE, PENDING, one_of
from distllm.store.tables import jobs, prompts, results, templates
from distllm.store.tx import Tx, as_list

_theirs = prompts.alias("theirs")
_asked = templates.alias("asked")
_before = jobs.alias("before")
_given = results.alias("given")
_NEW = (prompts.c.job_id == bindparam("job"), prompts.c.id > bindparam("after"), prompts.c.state == PENDING)

# The newest whole answer about the same reading, which is the same model and text, with the same parameters and
# from weights that this fleet has; found by the index on answered readings.
_answers = (
    select(func.max(_theirs.c.id))
    .join(_before, _before.c.id == _theirs.c.job_id)
    .join(_given, _given.c.prompt_id == _theirs.c.id)
    .where(
        _theirs.c.reading_id == prompts.c.reading_id,
        _theirs.c.state == DONE,
        _theirs.c.job_id != prompts.c.job_id,
        _before.c.params == jobs.c.params,
        _given.c.finish_reason != literal_column("'length'"),
        or_(_given.c.digest.is_(None), one_of(_given.c.digest, "digests")),
    )
)
_WHOLE = _theirs.c.parent_id.is_(None)
_SAME_QUESTION = (
    _asked.c.text == templates.c.text,
    _asked.c.max_tokens == templates.c.max_tokens,
    _asked.c.schema.is_not_distinct_from(templates.c.schema),
)
# To the same question of a template; however parts would have been read and put together, if there were none.
_newest = (
    _answers.join(_asked, _asked.c.id == _theirs.c.template_id)
    .where(
        _WHOLE,
        *_SAME_QUESTION,
        or_(
            _theirs.c.level == literal_column("0"),
            and_(
                _asked.c.merge.is_not_distinct_from(templates.c.merge),
                _before.c.with_references == jobs.c.with_references,
            ),
        ),
    )
    .correlate(prompts, templates, jobs)
    .scalar_subquery()
)
# To the same question about the same part of as many.
_newest_of_part = (
    _answers.join(_asked, _asked.c.id == _theirs.c.template_id)
    .where(*_SAME_QUESTION, _theirs.c.part == prompts.c.part, _theirs.c.parts == prompts.c.parts)
    .correlate(prompts, templates, jobs)
    .scalar_subquery()
)
# To the same stored request.
_newest_of_request = _answers.where(_WHOLE, _theirs.c.body == prompts.c.body).correlate(prompts, jobs).scalar_subquery()

_KEPT = (
    "worker_id",
    "sent_tokens",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "parts",
    "seconds",
    "finished_at",
    "finish_reason",
    "proof",
    "model",
    "data",
    "thinking",
    "answer",
    "digest",
)
_source = prompts.alias("source")
_known = results.alias("known")


def _copied(asking: FromClause, newest: ScalarSelect[int]) -> Insert:
    return insert(results).from_select(
        ["prompt_id", "attempt_id", "reused_from", *_KEPT],
        select(
            prompts.c.id,
            null(),
            func.coalesce(_known.c.reused_from, _source.c.job_id),
            *(_known.c[name] for name in _KEPT),
        )
        .select_from(asking)
        .join(jobs, jobs.c.id == prompts.c.job_id)
        .join(_source, _source.c.id == newest)
        .join(_known, _known.c.prompt_id == _source.c.id)
        .where(*_NEW),
    )


_OF_TEMPLATES = prompts.join(templates, templates.c.id == prompts.c.template_id)
_COPY = _copied(_OF_TEMPLATES, _newest)
_COPY_OF_PARTS = _copied(_OF_TEMPLATES, _newest_of_part)
_COPY_OF_REQUEST = _copied(prompts, _newest_of_request)

_END = (
    update(prompts)
    .where(*_NEW, exists().where(results.c.prompt_id == prompts.c.id))
    .values(state=DONE, finished_at=bindparam("now"))
)
_UNPROVEN = (
    select(func.count())
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id)
    # What is new is found on both sides.
    .where(*_NEW, results.c.prompt_id > bindparam("after"), results.c.proof == literal_column("'unproven'"))
)


# What waits for parts waits for those alone that are still to be asked.
_below = prompts.alias("below")
_WAIT_FOR_LESS = (
    update(prompts)
    .where(
        prompts.c.job_id == bindparam("job"),
        prompts.c.id > bindparam("after"),
        prompts.c.waits_for > literal_column("0"),
    )
    .values(
        waits_for=select(func.count())
        .where(_below.c.parent_id == prompts.c.id, _below.c.state != DONE)
        .correlate(prompts)
        .scalar_subquery()
    )
)


def reuse(
    tx: Tx, job_id: int, after: int, digests: Iterable[str], now: float, *, requests: bool = False
) -> tuple[int, int]:
    """Give the prompts of a job that are newer than prompt `after` the answers that exist; count them.

    They ask questions of templates, or else stored `requests`. `digests` are the weights that the fleet is
    known to have: an answer whose weights were told is reused only if they are among them. Returns how many
    prompts are done so, and how many of them are unproven.
    """
    return _reuse(tx, _COPY_OF_REQUEST if requests else _COPY, job_id, after, digests, now)


def reuse_parts(tx: Tx, job_id: int, after: int, digests: Iterable[str], now: float) -> tuple[int, int]:
    """The same for the parts of documents whose whole answers do not exist: an earlier job may not have come to them.

    Or it was asked with other questions, or to put answers together otherwise.
    """
    found = _reuse(tx, _COPY_OF_PARTS, job_id, after, digests, now)
    if found[0]:
        tx.run(_WAIT_FOR_LESS, {"job": job_id, "after": after})
    return found


def _reuse(tx: Tx, copy: Insert, job_id: int, after: int, digests: Iterable[str], now: float) -> tuple[int, int]:
    values = {"job": job_id, "after": after}
    if not tx.run(copy, values | {"digests": as_list(digests)}):
        return 0, 0
    unproven: int = tx.value(_UNPROVEN, values)
    return tx.run(_END, values | {"now": now}), unproven
