"""What one process does with a job of some size, by distllm's own store, and how long each step took."""

import asyncio
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from distllm.domain.models import Ask, Document, Outcome, Template, Usage
from distllm.domain.policy import Done
from distllm.store import sqlite
from distllm.store.attempts import Sent, Settlement, record_sent
from distllm.store.database import Database, open_database
from distllm.store.fleet import know_worker, register
from distllm.store.leases import claim
from distllm.store.reads import open_reader
from distllm.store.results import settle
from distllm.store.sqlite import Tx
from distllm.store.submissions import NewJob, NewReading, build_prompts, create_job, save_document

MODEL = "m"
WINDOW = 2**20
QUESTIONS = 100
"""Of each document: a million prompts over ten thousand documents."""

PAPER_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 1000, 40, 60
GROUPS, GROUP = 10, 5
"""A lease of fifty is ten readings' five prompts, as ten seats ask for them."""

ANSWER = "The authors find that the dam would have held, had anybody looked at it in time. " * 3
DOCUMENTS_A_COMMIT = 500

T = TypeVar("T")


@dataclass(slots=True)
class Steps:
    """Seconds of each step of a round, round by round, and the longest that the write-ahead log was, in bytes."""

    lease: list[float] = field(default_factory=list)
    settle: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    log: int = 0


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def submit(path: Path, prompts: int) -> tuple[float, float, int]:
    """Store a job; the seconds that its documents took, and its prompts, and the most memory."""
    return asyncio.run(_submit(path, prompts))


async def _submit(path: Path, prompts: int) -> tuple[float, float, int]:
    documents = prompts // QUESTIONS
    job = NewJob(
        name="shelf",
        preset=None,
        model=MODEL,
        params={"temperature": 0.0},
        priority=0,
        request_hash=f"{prompts} prompts",
        questions=[(Template(f"q{n:03}", f"What of {n}?"), ANSWER_TOKENS, QUESTION_TOKENS) for n in range(QUESTIONS)],
        files=[(f"{n:06}.txt", f"/papers/{n:06}.txt", 0.0) for n in range(documents)],
    )
    async with open_database(path) as database:
        began = time.perf_counter()
        job_id = await database.write(lambda tx: create_job(tx, job, time.time()))
        for first in range(0, documents, DOCUMENTS_A_COMMIT):
            await database.write(lambda tx, first=first: _save(tx, job_id, first, documents))  # type: ignore[misc]
        stored = time.perf_counter()
        while not await database.write(lambda tx: build_prompts(tx, job_id, time.time())):
            pass
        return stored - began, time.perf_counter() - stored, peak_memory()


def _save(tx: Tx, job_id: int, first: int, documents: int) -> None:
    for ordinal in range(first, min(first + DOCUMENTS_A_COMMIT, documents)):
        text = f"Paper {ordinal} says little. " * 10
        document = Document(f"{ordinal:064}", text, f"Paper {ordinal}", None, None)
        reading = NewReading(f"{ordinal:064}", PAPER_TOKENS + ordinal)
        save_document(tx, job_id, ordinal, document, lambda _, reading=reading: reading, time.time())  # type: ignore[misc]


def work(path: Path, rounds: int) -> tuple[Steps, int]:
    """Lease fifty prompts and settle fifty, round by round, each with a commit; how long that took, and the memory."""
    return asyncio.run(_work(path, rounds))


async def _work(path: Path, rounds: int) -> tuple[Steps, int]:
    steps = Steps()
    log = path.with_name(f"{path.name}-wal")
    async with open_database(path) as database:
        me = await database.write(lambda tx: register(tx, "here", 1, time.time()))
        worker = await database.write(lambda tx: know_worker(tx, "http://w:1", "w", "openai"))
        asks = [Ask(worker, {MODEL: WINDOW}, GROUP)] * GROUPS
        for turn in range(rounds):
            groups = await _timed(database, lambda tx: claim(tx, asks, (), me, time.time()), steps.lease, steps.commit)
            leases = [lease for group in groups for lease in group.leases]
            if len(leases) < GROUPS * GROUP:
                raise SystemExit(f"only {len(leases)} prompts were left for round {turn + 1}")
            numbered = enumerate(leases, (me << 32) + turn * len(leases))
            sent = [Sent(n, lease, worker, me, time.time(), lease.needs - ANSWER_TOKENS) for n, lease in numbered]
            await database.write(lambda tx, sent=sent: record_sent(tx, sent))  # type: ignore[misc]
            ends = [_end(each) for each in sent]
            await _timed(database, lambda tx, ends=ends: settle(tx, ends), steps.settle, steps.commit)  # type: ignore[misc]
            steps.log = max(steps.log, log.stat().st_size)
    return steps, peak_memory()


async def _timed(database: Database, step: Callable[[Tx], T], seconds: list[float], commit: list[float]) -> T:
    """Time a transaction's own work, and its COMMIT."""

    def transaction(tx: Tx) -> tuple[T, float, float]:
        began = time.perf_counter()
        value = step(tx)
        ended = time.perf_counter()
        return value, ended - began, ended

    value, took, ended = await database.write(transaction)
    seconds.append(took)
    commit.append(time.perf_counter() - ended)
    return value


def _end(sent: Sent) -> Settlement:
    usage = Usage(PAPER_TOKENS, PAPER_TOKENS - QUESTION_TOKENS, ANSWER_TOKENS, 0.1, 2.0)
    outcome = Outcome(None, None, ANSWER, None, "stop", MODEL, usage, 2.1, 0.1)
    return Settlement(sent, outcome, Done(), "proven", time.time(), ())


def look(path: Path, times: int) -> list[float]:
    """Run the query behind `distllm status` so many times; the seconds of each."""
    return asyncio.run(_look(path, times))


async def _look(path: Path, times: int) -> list[float]:
    seconds = []
    async with open_reader(path) as reader:
        for _ in range(times):
            began = time.perf_counter()
            await reader.job(1)
            seconds.append(time.perf_counter() - began)
    return seconds


def answer_all(path: Path) -> None:
    """Give every prompt an answer at once, which only a benchmark may."""
    with closing(sqlite.open_for_writing(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        _answer_all(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _answer_all(connection: sqlite3.Connection) -> None:
    now = {"now": time.time(), "model": MODEL, "answer": ANSWER}
    connection.execute(
        "INSERT INTO results (prompt_id, worker_id, sent_tokens, prompt_tokens, cached_tokens, completion_tokens, "
        "parts, seconds, finished_at, finish_reason, proof, model, answer) "
        "SELECT id, 1, tokens, tokens, tokens, 60, 1, 2.0, :now, 'stop', 'proven', :model, :answer FROM prompts "
        "WHERE state <> 'done'",
        now,
    )
    connection.execute(
        "UPDATE prompts SET state = 'done', finished_at = :now, holder = NULL WHERE state <> 'done'", now
    )
    connection.execute("UPDATE job_counters SET done = done + pending + leased, pending = 0, leased = 0")
    connection.execute("UPDATE jobs SET finished_at = :now", now)
