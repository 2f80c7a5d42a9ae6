"""A database, jobs over made-up papers, and coordinators that work them on fake servers."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from distllm.balancer.policies import Affinity, Policy
from distllm.dispatcher.coordinator import Coordinator
from distllm.domain.clock import Clock
from distllm.domain.events import Event, Noticed
from distllm.domain.hours import Hours
from distllm.domain.models import Document, Rates, Template, WorkerSpec, WorkerType
from distllm.domain.tokens import estimate_tokens
from distllm.presets import render_system
from distllm.store.database import Database, open_database
from distllm.store.fleet import know_worker, learn
from distllm.store.readings import NewReading
from distllm.store.submissions import NewJob, NewQuestion, build_prompts, create_job, save_document
from distllm.store.tx import Tx
from distllm.workers import make_worker
from distllm.workers.session import open_session
from tests.fakes.server import FakeServer
from tests.store import store_kit
from tests.store.conftest import emptied, path, postgres_store, sqlite_store
from tests.store.store_kit import PostgresStore, SqliteStore, Store

__all__ = ["emptied", "path", "postgres_store", "sqlite_store"]

MODEL = "fake-model"

FAST, SLOW = Rates(prefill=10_000, decode=1_000), Rates(prefill=100, decode=1)


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
    for ordinal, words in enumerate(papers):
        digest = hashlib.sha256(words.encode()).hexdigest()
        document = Document(digest, words, None, None, None)
        await database.write(lambda tx, o=ordinal, d=document: save_document(tx, job_id, o, d, reading, 1.0))
    while not await database.write(lambda tx: build_prompts(tx, job_id, 2.0)):
        pass
    return job_id


@dataclass
class Bench:
    """A database, what was told while coordinators worked it, and the same database as another program has it."""

    database: Database
    store: Store
    events: list[Event] = field(default_factory=list)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database in SQL."""
        return self.store.rows(statement, *values)

    async def change(self, statement: str, **values: Any) -> None:
        """Change the database by hand."""
        await self.database.write(lambda tx: tx.run(text(statement), values))

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
        async with open_database(self.database.place) as database:
            await database.write(transaction)

    async def work(self, *servers: FakeServer, seconds: float = 20.0, **settings: Any) -> None:
        """Work until every job has ended."""
        async with self.coordinator(*servers, **settings) as coordinator, asyncio.timeout(seconds):
            await coordinator.run(lambda _: True)

    def said(self) -> list[str]:
        """What people were told."""
        return [event.text for event in self.events if isinstance(event, Noticed)]

    def assert_consistent(self) -> None:
        """What is true between any two transactions, and no lease is left."""
        store_kit.assert_consistent(self.store)
        assert self.rows("SELECT id FROM prompts WHERE state = 'leased'") == []
        assert self.rows("SELECT id FROM attempts WHERE outcome IS NULL") == []


async def knows(bench: Bench, server: FakeServer, rates: Rates) -> int:
    """As if the server had shown its pace in an earlier run, with answers of twelve tokens; its id."""

    def earlier(tx: Tx) -> int:
        worker = know_worker(tx, server.url, f"w of {server.port}", "openai")
        learn(tx, worker, MODEL, rates, 1.0)
        return worker

    worker = await bench.database.write(earlier)
    await bench.change("UPDATE workers SET succeeded = 10, completion_tokens = 120 WHERE id = :worker", worker=worker)
    return worker


def _spec(name: str, server: FakeServer, context_length: int | None) -> WorkerSpec:
    kind = WorkerType(server.kind) if server.kind in list(WorkerType) else WorkerType.OPENAI
    return WorkerSpec(name=name, type=kind, host=server.host, port=server.port, context_length=context_length)


@pytest.fixture
async def sqlite_bench(sqlite_store: SqliteStore) -> AsyncIterator[Bench]:
    """A new database in a file."""
    async with open_database(sqlite_store.place) as database:
        yield Bench(database, sqlite_store)


@pytest.fixture
async def postgres_bench(postgres_store: PostgresStore) -> AsyncIterator[Bench]:
    """An empty database on PostgreSQL."""
    async with open_database(postgres_store.place) as database:
        yield Bench(database, postgres_store)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A new database on each engine; what several coordinators do on PostgreSQL is tested every day."""
    opened: Bench = request.getfixturevalue(f"{request.param}_bench")
    return opened
