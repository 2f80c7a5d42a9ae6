"""What can be found out about the content of a database, whatever the engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from distllm.store.migrate import DAMAGED, revisions
from distllm.store.truths import (
    COUNTED,
    COUNTED_FROM_ROWS,
    COUNTS,
    HELD,
    IN_FLIGHT,
    JOBS_THAT_END_WRONGLY,
    PROMISES,
    WAITS_WRONGLY,
)
from distllm.store.tx import Row

Ask = Callable[[str], list[Row]]
"""Gives all rows of a statement."""

MOST_NAMED = 5
RECOUNT = "distllm db check --repair"


class Level(StrEnum):
    """How bad a finding is."""

    FINE = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about one thing; `repairable` if `repair` mends it."""

    level: Level
    about: str
    text: str
    repairable: bool = False


def schema(revision: str | None) -> Finding:
    """Whether a database has the newest schema: nothing else can be looked at where it has not."""
    if revision != revisions()[-1]:
        text = f"{revision or 'none'}, and this program's is {revisions()[-1]}; run: distllm db upgrade"
        return Finding(Level.FAULT, "schema", text)
    return Finding(Level.FINE, "schema", f"{revision}, the newest")


def read_views(ask: Ask, listed: str) -> Finding:
    """Read from every view that people use, of which `listed` gives the names. Raises what a broken one raises."""
    for (name,) in ask(listed):
        ask(f"SELECT * FROM {name} LIMIT 1")
    return Finding(Level.FINE, "views", "all can be read")


def leases(ask: Ask, live: Callable[[], Sequence[int]]) -> Finding:
    """Whether what is leased has a holder, `live` being the processes that work the database."""
    # Asked before and after, since a coordinator may just come or go.
    before = live()
    [(held,)], [(in_flight,)] = ask(HELD), ask(IN_FLIGHT)
    working = before or live()
    if working:
        who = f"process {working[0]} works" if len(working) == 1 else f"processes {_and(working)} work"
        return Finding(Level.FINE, "leases", f"{who} this database and hold{'s' * (len(working) == 1)} {held}")
    if held or in_flight:
        text = (
            f"no coordinator is live, but {held} prompts are leased and {in_flight} attempts open; "
            f"`distllm resume` takes them back, or run: {RECOUNT}"
        )
        return Finding(Level.FAULT, "leases", text, repairable=True)
    return Finding(Level.FINE, "leases", "no coordinator is live, and nothing is leased")


def _and(pids: Sequence[int]) -> str:
    return f"{', '.join(map(str, pids[:-1]))} and {pids[-1]}"


def content(ask: Ask) -> Iterator[Finding]:
    """What is not as it should be; `ask` answers all from one snapshot."""
    wrong = list(_wrong_counters(ask))
    ended = [job for (job,) in ask(JOBS_THAT_END_WRONGLY)]
    broken = [(text, [row[0] for row in ask(find)]) for text, find in PROMISES.items()]
    waiting = [prompt for (prompt,) in ask(WAITS_WRONGLY)]
    for job, text in wrong:
        yield Finding(Level.FAULT, "counters", f"of job {job}: {text}; run: {RECOUNT}", repairable=True)
    if not wrong:
        yield Finding(Level.FINE, "counters", "agree with the prompts and results")
    if ended:
        text = f"{_listed('job', ended)} ended too early or too late; run: {RECOUNT}"
        yield Finding(Level.FAULT, "jobs", text, repairable=True)
    for text, ids in broken:
        if ids:
            yield Finding(Level.FAULT, "prompts", f"{text}: {_listed('prompt', ids)}; {DAMAGED}")
    if waiting:
        wait = "wait" if len(waiting) > 1 else "waits"
        text = f"{_listed('prompt', waiting)} {wait} for another number of parts than are unfinished"
        yield Finding(Level.FAULT, "parts", f"{text}; run: {RECOUNT}", repairable=True)
    if not any(ids for _, ids in broken):
        yield Finding(Level.FINE, "prompts", "each is in one state, and what is done has one result")


def _wrong_counters(ask: Ask) -> Iterator[tuple[int, str]]:
    """The jobs whose counters differ from their rows, each with what is counted and what there is."""
    counted = _by_job(ask(COUNTED))
    there_are = _by_job(ask(COUNTED_FROM_ROWS))
    nothing = (0,) * len(COUNTS)
    for job, part in sorted(counted.keys() | there_are.keys()):
        said, found = counted.get((job, part), nothing), there_are.get((job, part), nothing)
        differ = [
            f"{name} {said[place]}, in truth {found[place]}"
            for place, name in enumerate(COUNTS)
            if said[place] != found[place]
        ]
        if differ:
            yield job, f"{'parts: ' if part else ''}{', '.join(differ)}"


def _by_job(rows: Sequence[Row]) -> dict[tuple[int, int], tuple[int, ...]]:
    return {(row[0], row[1]): row[2:] for row in rows}


def _listed(noun: str, ids: Sequence[int]) -> str:
    named = ", ".join(str(each) for each in ids[:MOST_NAMED])
    more = f" and {len(ids) - MOST_NAMED:,} more" if len(ids) > MOST_NAMED else ""
    return f"{noun}{'s' if len(ids) > 1 else ''} {named}{more}"
