"""A database, jobs over made-up papers, and coordinators that work them on fake servers."""

import asyncio
import hashlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from distllm.balancer.policies import Affinity, Policy
from distllm.dispatcher.coordinator import Coordinator
from distllm.domain.clock import Clock
from distllm.domain.events import Event, Noticed
from distllm.domain.hours import Hours
from distllm.domain.models import Document, Template, WorkerSpec, WorkerType
from distllm.domain.tokens import estimate_tokens
from distllm.presets import render_system
from distllm.store.database import Database, open_database
from distllm.store.readings import NewReading
from distllm.store.sqlite import Writer
from distllm.store.submissions import NewJob, NewQuestion, build_prompts, create_job, save_document
from distllm.store.tx import Tx
from distllm.workers import make_worker
from distllm.workers.session import open_session
from tests.fakes.server import FakeServer

MODEL = "fake-model"


def paper(number: int, words: int = 60) -> str:
    """A paper that is like no other."""
    return " ".join(f"paper{number}word{index}" for index in range(words))


def reading(text: str) -> NewReading:
    """What a server will read for a text."""
    system = render_system(text)
    return NewReading(hashlib.sha256(system.encode()).hexdigest(), estimate_tokens(system))


async def store_job(
    database: Database,
    papers: Sequence[str],
    questions: Sequence[str],
    *,
    model: str = MODEL,
    max_tokens: int = 50,
    name: str = "job",
) -> int:
    """Store a job that is ready to be worked."""
    job = NewJob(
        name=name,
        preset=None,
        model=model,
        params={"temperature": 0.0},
        priority=0,
        request_hash=uuid.uuid4().hex,
        questions=[NewQuestion(Template(f"q{i}", text), max_tokens, 20, 60) for i, text in enumerate(questions)],
        files=[(f"paper{i}.txt", f"/papers/paper{i}.txt", 0.0) for i in range(len(papers))],
    )
    job_id = await database.write(lambda tx: create_job(tx, job, 1.0))
    for ordinal, text in enumerate(papers):
        digest = hashlib.sha256(text.encode()).hexdigest()
        document = Document(digest, text, None, None, None)
        await database.write(lambda tx, o=ordinal, d=document: save_document(tx, job_id, o, d, reading, 1.0))
    while not await database.write(lambda tx: build_prompts(tx, job_id, 2.0)):
        pass
    return job_id


@dataclass
class Bench:
    """A database and what was told while coordinators worked it."""

    database: Database
    events: list[Event] = field(default_factory=list)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database in SQL."""
        with closing(sqlite3.connect(self.database.place)) as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Change the database by hand; committed at the end."""
        with closing(sqlite3.connect(self.database.place)) as connection, connection:
            yield connection

    @asynccontextmanager
    async def coordinator(
        self,
        *servers: FakeServer,
        policy: Policy | None = None,
        seats: int | None = None,
        max_retries: int = 3,
        health_check_interval: float = 0.2,
        seats_in_all: int | None = None,
        aliases: Sequence[Sequence[str]] = (),
        no_worker_limit: float = 30.0,
        keep_samples: bool = False,
        request_timeout: float = 30.0,
        clock: Clock | None = None,
        context_length: int | None = None,
        hours: Hours | None = None,
    ) -> AsyncIterator[Coordinator]:
        """A coordinator with one worker for each server; `context_length` is configured for all of them."""
        async with open_session() as session:
            specs = [_spec(f"w{i}", server, context_length) for i, server in enumerate(servers)]
            workers = [make_worker(spec, session) for spec in specs]
            yield Coordinator(
                self.database,
                [(worker, seats) for worker in workers],
                policy or Affinity(),
                aliases=aliases,
                health_check_interval=health_check_interval,
                request_timeout=request_timeout,
                max_retries=max_retries,
                seats_in_all=seats_in_all,
                no_worker_limit=no_worker_limit,
                listener=self.events.append,
                clock=clock or Clock(),
                rng=Random(1),
                keep_samples=keep_samples,
                hours=hours,
            )

    async def elsewhere(self, transaction: Callable[[Tx], object]) -> None:
        """Run a transaction as another process would, on a connection of its own."""
        writer = Writer(self.database.place)
        await writer.run(transaction)
        await writer.close()

    async def work(self, *servers: FakeServer, seconds: float = 20.0, **settings: Any) -> None:
        """Work until every job has ended."""
        async with self.coordinator(*servers, **settings) as coordinator, asyncio.timeout(seconds):
            await coordinator.run(lambda _: True)

    def said(self) -> list[str]:
        """What people were told."""
        return [event.text for event in self.events if isinstance(event, Noticed)]

    def assert_consistent(self) -> None:
        """Counters agree with rows, each done prompt has one result, and no lease is left."""
        states = ("pending", "leased", "done", "failed", "cancelled")
        counted = self.rows(f"SELECT {', '.join(f'sum({state})' for state in states)} FROM job_counters")[0]
        found = dict(self.rows("SELECT state, count(*) FROM prompts GROUP BY state"))
        assert counted == tuple(found.get(state, 0) for state in states)
        assert "leased" not in found
        assert self.rows("SELECT count(*) FROM results") == [(found.get("done", 0),)]
        assert self.rows("SELECT count(*) FROM attempts WHERE outcome IS NULL")[0][0] == 0
        assert self.rows("PRAGMA integrity_check") == [("ok",)]


def _spec(name: str, server: FakeServer, context_length: int | None) -> WorkerSpec:
    kind = WorkerType(server.kind) if server.kind in list(WorkerType) else WorkerType.OPENAI
    return WorkerSpec(name=name, type=kind, host=server.host, port=server.port, context_length=context_length)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A new database."""
    async with open_database(tmp_path / "bench.db") as database:
        yield Bench(database)
