"""Ends of attempts: each in the transaction that moves its prompt, under the lease it was given."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, case, exists, func, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.policy import Again, Done, Failed, Lost, Refused
from distllm.domain.states import PromptState
from distllm.store.attempts import Settlement, record_end
from distllm.store.failures import fail_parents
from distllm.store.leases import ALIBI, count_moves
from distllm.store.sql import DONE, FAILED, LEASED, PENDING, insert_row, one_of
from distllm.store.sqlite import Tx, as_list
from distllm.store.submissions import FINISH
from distllm.store.tables import attempts, prompts, refusals, results, workers

_OURS = (prompts.c.id == bindparam("prompt"), prompts.c.lease == bindparam("number"))
_UNSETTLED = prompts.c.state.in_([LEASED, PENDING])

# The newest lease ends its prompt, also when it was taken back meanwhile and not given again: a late answer
# saves minutes. No row: a newer lease exists, or the prompt has ended, and the answer is stale.
_FINISH_PROMPT = (
    update(prompts).where(*_OURS, _UNSETTLED).values(state=DONE, holder=None, finished_at=bindparam("now"), error=None)
)
_STATE = select(prompts.c.state).where(*_OURS)

# A lease under which it is asked a second time at once stays until the last of the two has ended.
_LAST_OF_LEASE = ~exists().where(
    attempts.c.prompt_id == bindparam("prompt"),
    attempts.c.lease == bindparam("number"),
    attempts.c.id != bindparam("attempt"),
    attempts.c.outcome.is_(None),
)
_AGAIN = (
    update(prompts)
    .where(*_OURS, prompts.c.state == LEASED, _LAST_OF_LEASE)
    .values(
        state=PENDING,
        holder=None,
        available_at=bindparam("due"),
        failures=prompts.c.failures + bindparam("charge"),
        losses=prompts.c.losses + bindparam("loss"),
        # In a row: who fails it in words has not gone down with it.
        deaths_alone=case(
            (bindparam("spoken"), literal_column("0")), else_=prompts.c.deaths_alone + bindparam("death")
        ),
        error=bindparam("reason"),
    )
)
_FAIL = (
    update(prompts)
    .where(*_OURS, prompts.c.state == LEASED, _LAST_OF_LEASE)
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
        select(prompts.c.id, bindparam("refusing")).where(prompts.c.id == bindparam("prompt"), ~_REPORTED),
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

# What was waiting for a part waits for one less.
_PART_DONE = (
    update(prompts)
    .where(prompts.c.id == bindparam("parent"), prompts.c.waits_for > literal_column("0"))
    .values(waits_for=prompts.c.waits_for - literal_column("1"))
)


def settle(tx: Tx, settlements: Sequence[Settlement]) -> int:
    """Write what became of attempts, and move their prompts; return how many answers came too late."""
    stale = 0
    ended_jobs = {}
    for each in settlements:
        label, target = _move(tx, each)
        stale += label == "stale"
        record_end(tx, each, label)
        if target in (PromptState.DONE, PromptState.FAILED):
            ended_jobs[each.sent.lease.job_id] = each.finished_at
    for job_id, now in ended_jobs.items():
        tx.run(FINISH, {"job": job_id, "now": now})
    return stale


def _move(tx: Tx, each: Settlement) -> tuple[str, PromptState | None]:
    """Move the prompt as the verdict says; return the attempt's outcome and the prompt's new state."""
    lease, outcome = each.sent.lease, each.outcome
    ours = {"prompt": lease.prompt_id, "number": lease.number}
    part = int(lease.parent_id is not None)
    label = "done" if outcome.error_class is None else outcome.error_class.value
    if isinstance(each.verdict, Done):
        was = tx.value(_STATE, ours)
        if not tx.run(_FINISH_PROMPT, ours | {"now": each.finished_at}):
            return "stale", None
        tx.run(_NEW_RESULT, _result_row(each))
        _count_answer(tx, each, PromptState(was), part)
        if lease.parent_id is not None:
            tx.run(_PART_DONE, {"parent": lease.parent_id})
        return label, PromptState.DONE
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
            fail_parents(tx, lease.parent_id, reason, each.finished_at)
            return label, PromptState.FAILED
    elif tx.run(_AGAIN, values | {"due": due, "loss": loss, "death": death, "spoken": spoken}):
        count_moves(tx, lease.job_id, part, PromptState.LEASED, PromptState.PENDING, 1)
        if loss and not death:
            tx.run(ALIBI, {})
        return label, PromptState.PENDING
    return label, None


def _result_row(each: Settlement) -> dict[str, Any]:
    outcome, usage = each.outcome, each.outcome.usage
    return {
        "prompt_id": each.sent.lease.prompt_id,
        "attempt_id": each.sent.id,
        "worker_id": each.sent.worker_id,
        "sent_tokens": each.sent.sent_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "parts": 1,
        "seconds": outcome.seconds,
        "finished_at": each.finished_at,
        "finish_reason": outcome.finish_reason,
        "proof": each.proof,
        "model": outcome.model,
        "thinking": outcome.thinking,
        "answer": outcome.answer,
        "digest": each.digest,
    }


def _count_answer(tx: Tx, each: Settlement, was: PromptState, part: int) -> None:
    usage = each.outcome.usage
    count_moves(
        tx,
        each.sent.lease.job_id,
        part,
        was,
        PromptState.DONE,
        1,
        prompt_tokens=usage.prompt_tokens or 0,
        cached_tokens=usage.cached_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        truncated=int(each.outcome.finish_reason == "length"),
        unproven=int(each.proof == "unproven"),
    )
