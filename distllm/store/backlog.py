"""What nobody has taken yet, once little enough of it is left to be looked at whole."""

from typing import Any

from sqlalchemy import bindparam, case, func, literal_column, select

from distllm.domain.models import Paper
from distllm.domain.policy import LOSSES_TO_SUSPECT
from distllm.store.claims import RUNNABLE
from distllm.store.sql import PENDING, one_of
from distllm.store.tables import job_counters, prompts, readings, workers
from distllm.store.tx import Tx, as_list

MOST_PROMPTS = 2_000
MOST_FOR_EACH_WORKER = 20


def most_prompts(workers: int) -> int:
    """While more prompts wait than this for so many healthy workers, the end is too far away to be planned."""
    return max(MOST_PROMPTS, MOST_FOR_EACH_WORKER * workers)


_PENDING = select(func.coalesce(func.sum(job_counters.c.pending), literal_column("0"))).where(
    one_of(job_counters.c.job_id, "jobs")
)
_HEALTHY = select(func.count()).select_from(workers).where(workers.c.healthy == literal_column("1"))
_READING_TOKENS = func.coalesce(func.max(readings.c.tokens_read), func.max(readings.c.tokens))
_READINGS = (
    select(
        # Merges read none of their document, but each the answers that it puts together.
        case((func.min(prompts.c.level) > literal_column("0"), func.sum(prompts.c.tokens)), else_=_READING_TOKENS),
        func.count(),
        func.max(prompts.c.tokens),
    )
    .join(readings, readings.c.id == prompts.c.reading_id)
    .where(
        prompts.c.job_id == bindparam("job"),
        prompts.c.state == PENDING,
        prompts.c.waits_for == literal_column("0"),
        prompts.c.losses < literal_column(str(LOSSES_TO_SUSPECT)),
    )
    .group_by(prompts.c.reading_id)
)


def backlog(tx: Tx, model: str) -> list[Paper]:
    """The readings that wait for `model`, the longest first; none while there are too many to look at.

    Tokens are what a server counted, where one has. A reading that two jobs ask about counts for each.
    """
    jobs = [job_id for job_id, *_ in tx.rows(RUNNABLE, {"models": as_list([model])})]
    values: dict[str, Any] = {"jobs": as_list(jobs)}
    if tx.value(_PENDING, values) > most_prompts(tx.value(_HEALTHY, {})):
        return []
    rows = [row for job_id in jobs for row in tx.rows(_READINGS, {"job": job_id})]
    found = [Paper(tokens, count, needs) for tokens, count, needs in rows]
    return sorted(found, key=lambda paper: paper.needs, reverse=True)
