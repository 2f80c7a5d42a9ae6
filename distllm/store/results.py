"""Ends of attempts: each in the transaction that moves its prompt, under the lease it was given."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Integer, bindparam, case, cast, exists, func, literal_column, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.models import ErrorClass
from distllm.domain.policy import Again, Done, Failed, Lost, Refused
from distllm.domain.states import PromptState
from distllm.store.attempts import Sent, Settlement, record_ends, record_sent, reported_outcomes
from distllm.store.costs import count_costs
from distllm.store.failures import fail_parents
from distllm.store.leases import ALIBI, OF_LEASE, OURS, count_moves, fence
from distllm.store.sql import DONE, FAILED, LEASED, PENDING, insert_row, one_of
from distllm.store.submissions import finish_jobs
from distllm.store.tables import attempts, prompts, refusals, results, workers
from distllm.store.tx import Tx, as_list

# The newest lease ends its prompt, also when it was taken back meanwhile and not given again: a late answer
# saves minutes. Where it is not found, a newer lease exists, or the prompt has ended, and the answer is stale. Nobody
# moves it between this look and its end.
_OPEN = (
    select(prompts.c.id, prompts.c.job_id, prompts.c.lease, prompts.c.state)
    .where(one_of(prompts.c.id, "prompts"), prompts.c.state.in_([LEASED, PENDING]))
    .order_by(prompts.c.id)
    .with_for_update(key_share=True)
)
_FINISH_PROMPT = update(prompts).where(*OURS).values(state=DONE, holder=None, finished_at=bindparam("now"), error=None)

_STATE = select(prompts.c.state).where(*OURS)

# A lease under which it is asked a second time at once stays until the last of the two has ended; then what is
# counted against the prompt is what either has met, once.
_OTHER = (
    attempts.c.prompt_id == bindparam("prompt"),
    attempts.c.lease == bindparam("number"),
    attempts.c.id != bindparam("attempt"),
)
_LAST_OF_LEASE = ~exists().where(*_OTHER, attempts.c.outcome.is_(None))


def _either(this: str, other: ErrorClass) -> ColumnElement[int]:
    """One if the flag `this` is set, or the other attempt under the lease ended so."""
    met = exists().where(*_OTHER, attempts.c.outcome == literal_column(f"'{other}'"))
    return case((or_(bindparam(this), met), literal_column("1")), else_=literal_column("0"))


_AGAIN = (
    update(prompts)
    .where(*OURS, prompts.c.state == LEASED, _LAST_OF_LEASE)
    .values(
        state=PENDING,
        holder=None,
        available_at=bindparam("due"),
        failures=prompts.c.failures + _either("charge", ErrorClass.BROKEN),
        losses=prompts.c.losses + _either("loss", ErrorClass.LOST),
        # In a row: who fails it in words has not gone down with it.
        deaths_alone=case(
            (bindparam("spoken"), literal_column("0")), else_=prompts.c.deaths_alone + bindparam("death")
        ),
        error=bindparam("reason"),
    )
)
_FAIL = (
    update(prompts)
    .where(*OURS, prompts.c.state == LEASED, _LAST_OF_LEASE)
    .values(
        state=FAILED,
        holder=None,
        finished_at=bindparam("now"),
        failures=prompts.c.failures + bindparam("charge"),
        error=bindparam("reason"),
    )
)

# A second report must not undo that a retry trusts the worker again.
_REPORTED = exists().where(
    attempts.c.id == bindparam("attempt"),
    attempts.c.outcome.is_not(None),
    attempts.c.outcome != literal_column("'lost'"),
)
_REFUSE = (
    upsert_into(refusals)
    .from_select(
        ["prompt_id", "worker_id"],
        select(prompts.c.id, bindparam("refusing")).where(*OF_LEASE, ~_REPORTED),
    )
    .on_conflict_do_nothing()
)

# Whether a worker is left that has not refused the prompt.
_WILLING = (
    select(func.count())
    .select_from(workers)
    .where(
        one_of(workers.c.id, "others"),
        ~exists().where(refusals.c.prompt_id == bindparam("prompt"), refusals.c.worker_id == workers.c.id),
    )
)

_RESULT_COLUMNS = (
    "prompt_id",
    "attempt_id",
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
    "thinking",
    "answer",
    "digest",
)
_NEW_RESULT = insert_row(results, *_RESULT_COLUMNS)

_BELOW = (
    select(
        prompts.c.parent_id,
        func.sum(results.c.parts),
        func.sum(cast(results.c.proof == literal_column("'unproven'"), Integer)),
    )
    .join_from(prompts, results, results.c.prompt_id == prompts.c.id)
    .where(one_of(prompts.c.parent_id, "merges"))
    .group_by(prompts.c.parent_id)
)

# What was waiting for a part waits for one less.
_PART_DONE = (
    update(prompts)
    .where(prompts.c.id == bindparam("parent"), prompts.c.waits_for > literal_column("0"))
    .values(waits_for=prompts.c.waits_for - literal_column("1"))
)


def settle(tx: Tx, settlements: Sequence[Settlement]) -> set[int]:
    """Write what became of attempts, and move their prompts; return the ids of the attempts that moved theirs."""
    # An answer goes before a failure under the same lease.
    answers = [each for each in settlements if isinstance(each.verdict, Done)]
    fresh = _finish(tx, answers)
    moved = set(fresh)
    ends = record_ends(tx, [(each, "done" if each.sent.id in fresh else "stale") for each in answers])
    ended_jobs = {each.sent.lease.job_id: each.finished_at for each in answers if each.sent.id in fresh}
    others = [each for each in settlements if not isinstance(each.verdict, Done)]
    under = Counter(each.sent.lease.key for each in others)
    # Of two that have ended under one lease, the first must find that it is not the last.
    record_sent(tx, [each.sent for each in others if under[each.sent.lease.key] > 1])
    for each in others:
        label, target = _move(tx, each)
        ends += record_ends(tx, [(each, label)])
        if target is not None:
            moved.add(each.sent.id)
        if target is PromptState.FAILED:
            ended_jobs[each.sent.lease.job_id] = each.finished_at
    count_costs(tx, ends, fresh)
    for job_id, now in ended_jobs.items():
        finish_jobs(tx, [job_id], now)
    return moved


# The attempt tells whether it is still that answer: one that was asked for again is another. What was put together is
# proven no more than what it was put together from.
_given = results.alias("given")
_PROVE = (
    update(results)
    .where(
        results.c.prompt_id == bindparam("prompt"),
        results.c.attempt_id == bindparam("attempt"),
        results.c.proof == literal_column("'unproven'"),
        ~exists().where(
            prompts.c.parent_id == bindparam("prompt"),
            _given.c.prompt_id == prompts.c.id,
            _given.c.proof == literal_column("'unproven'"),
        ),
    )
    .values(proof="proven")
)


def prove(tx: Tx, attempts: Iterable[Sent]) -> None:
    """Say of answers that they are proven after all, where they became results."""
    for each in attempts:
        lease = each.lease
        if tx.run(_PROVE, {"prompt": lease.prompt_id, "attempt": each.id}):
            part = int(lease.parent_id is not None)
            count_moves(tx, lease.job_id, part, PromptState.DONE, PromptState.DONE, 0, unproven=-1)


def _finish(tx: Tx, answers: Sequence[Settlement]) -> set[int]:
    """Make results of answers; return the attempts of those that are no more than that: the others are stale."""
    found = tx.rows(_OPEN, {"prompts": as_list(each.sent.lease.prompt_id for each in answers)}) if answers else []
    open_leases = {(prompt, job, number): PromptState(state) for prompt, job, number, state in found}
    fresh: dict[int, PromptState] = {}
    # What came too late once has come too late, also if a person has had the prompt asked again since.
    reported = reported_outcomes(tx, answers) if found else {}
    for each in answers:
        if reported.get(each.sent.id, "lost") != "lost":
            continue
        lease = each.sent.lease
        was = open_leases.pop((lease.prompt_id, lease.job_id, lease.number), None)
        if was is not None:
            fresh[each.sent.id] = was
    accepted, parts = _put_together(tx, [each for each in answers if each.sent.id in fresh])
    tx.many(_FINISH_PROMPT, [_finished(each) for each in accepted])
    tx.many(_NEW_RESULT, [_result_row(each, parts.get(each.sent.id, 1)) for each in accepted])
    tx.many(_PART_DONE, [{"parent": parent} for each in accepted if (parent := each.sent.lease.parent_id) is not None])
    _count_answers(tx, [(each, fresh[each.sent.id]) for each in accepted])
    return set(fresh)


def _put_together(tx: Tx, answers: Sequence[Settlement]) -> tuple[list[Settlement], dict[int, int]]:
    """The same answers, merges no better proven than what they put together; from how many parts those are, by attempt.

    What is about one text is not among these.
    """
    merges = [each.sent.lease.prompt_id for each in answers if each.sent.lease.level]
    below = {parent: told for parent, *told in tx.rows(_BELOW, {"merges": as_list(merges)})} if merges else {}
    judged, parts = [], {}
    for each in answers:
        if each.sent.lease.level:
            parts[each.sent.id], unproven = below[each.sent.lease.prompt_id]
            each = replace(each, proof="unproven") if unproven else each
        judged.append(each)
    return judged, parts


def _move(tx: Tx, each: Settlement) -> tuple[str, PromptState | None]:
    """Move a prompt that has no answer as the verdict says; return the attempt's outcome and the new state."""
    lease, outcome = each.sent.lease, each.outcome
    ours = fence(lease)
    label = "stale" if outcome.error_class is None else outcome.error_class.value
    if outcome.error_class is ErrorClass.RELEASED and tx.value(_STATE, ours) == PromptState.DONE:
        # Stopped since another one, asked under the same lease, had answered.
        return "stale", None
    part = int(lease.parent_id is not None)
    reason, due = outcome.error, each.finished_at
    charge = loss = death = spoken = fails = False
    match each.verdict:
        case Again():
            charge, due = each.verdict.charged, each.verdict.at
            spoken = charge
        case Lost():
            loss, death, due = True, each.verdict.alone, each.verdict.at
        case Refused():
            tx.run(_REFUSE, ours | {"attempt": each.sent.id, "refusing": each.sent.worker_id})
            fails, spoken = not tx.value(_WILLING, ours | {"others": as_list(each.others)}), True
        case Failed():
            fails = charge = True
            reason = each.verdict.why or reason
    values = ours | {"attempt": each.sent.id, "charge": charge, "reason": reason}
    if fails:
        if tx.run(_FAIL, values | {"now": each.finished_at}):
            count_moves(tx, lease.job_id, part, PromptState.LEASED, PromptState.FAILED, 1)
            fail_parents(tx, lease.parent_id, lease.part, lease.parts, reason, each.finished_at)
            return label, PromptState.FAILED
    elif tx.run(_AGAIN, values | {"due": due, "loss": loss, "death": death, "spoken": spoken}):
        count_moves(tx, lease.job_id, part, PromptState.LEASED, PromptState.PENDING, 1)
        if loss and not death:
            tx.run(ALIBI, {})
        return label, PromptState.PENDING
    return label, None


def _finished(each: Settlement) -> dict[str, Any]:
    return fence(each.sent.lease) | {"now": each.finished_at}


def _result_row(each: Settlement, parts: int) -> dict[str, Any]:
    outcome, usage = each.outcome, each.outcome.usage
    return {
        "prompt_id": each.sent.lease.prompt_id,
        "attempt_id": each.sent.id,
        "worker_id": each.sent.worker_id,
        "sent_tokens": each.sent.sent_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "parts": parts,
        "seconds": outcome.seconds,
        "finished_at": each.finished_at,
        "finish_reason": outcome.finish_reason,
        "proof": each.proof,
        "model": outcome.model,
        "thinking": outcome.thinking,
        "answer": outcome.answer,
        "digest": each.digest,
    }


def _count_answers(tx: Tx, answers: Iterable[tuple[Settlement, PromptState]]) -> None:
    """Count answers for their jobs; each comes with the state that its prompt was in."""
    counts: dict[tuple[int, int, PromptState], Counter[str]] = {}
    for each, was in answers:
        lease, usage = each.sent.lease, each.outcome.usage
        counted = counts.setdefault((lease.job_id, int(lease.parent_id is not None), was), Counter())
        counted.update(
            answers=1,
            prompt_tokens=usage.prompt_tokens or 0,
            cached_tokens=usage.cached_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            truncated=int(each.outcome.finish_reason == "length"),
            unproven=int(each.proof == "unproven"),
        )
    for (job_id, part, was), counted in counts.items():
        count_moves(tx, job_id, part, was, PromptState.DONE, counted.pop("answers"), **counted)
