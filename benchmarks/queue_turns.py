"""A coordinator's transactions without its servers: what has ended is settled, and as much is leased anew."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.fresh import SPAWN
from distllm.domain.models import Ask, Outcome, Usage
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.domain.policy import Done
from distllm.store.attempts import Sent, Settlement, record_sent
from distllm.store.claims import claim
from distllm.store.database import Database, open_database
from distllm.store.fleet import know_worker, register
from distllm.store.leases import Lease
from distllm.store.results import settle
from distllm.store.tx import Tx

SEATS, LIMIT = 10, 5
BATCH = SEATS * LIMIT
WINDOW = 1_000_000
ANSWER = "What the paper says of it, in a few sentences. " * 15


class Turn(NamedTuple):
    """One transaction: the seconds of its parts, and the bytes of SQLite's write-ahead log after it."""

    settle: float
    lease: float
    commit: float
    log: int


class Coordinator:
    """Ten seats that ask five questions each about a paper of their own."""

    def __init__(self, database: Database, me: int, worker: int, model: str) -> None:
        self._database = database
        self._me = me
        self._asks = [Ask(worker, {model: WINDOW}, LIMIT)] * SEATS
        self._attempts = me << 32
        self._leased: list[Sent] = []
        self._in_flight: list[Sent] = []

    async def turn(self) -> Turn:
        """Settle what is in flight, tell of what was sent since, and lease as much again."""
        now = time.time()
        ends = [self._answered(sent, now) for sent in self._in_flight]
        sent = self._leased

        def transaction(tx: Tx) -> tuple[list[float], list[Sent]]:
            marks = [time.perf_counter()]
            record_sent(tx, sent)
            marks.append(time.perf_counter())
            moved = settle(tx, ends)
            marks.append(time.perf_counter())
            groups = claim(tx, self._asks, [], self._me, now)
            marks.append(time.perf_counter())
            assert len(moved) == len(ends)
            return marks, [self._sent(group.worker_id, lease, now) for group in groups for lease in group.leases]

        marks, leased = await self._database.write(transaction)
        committed = time.perf_counter()
        self._in_flight, self._leased = sent, leased
        assert len(leased) == BATCH, "too few prompts are left"
        return Turn(marks[2] - marks[1], marks[3] - marks[2], committed - marks[3], _log_bytes(self._database.place))

    def _sent(self, worker_id: int, lease: Lease, now: float) -> Sent:
        self._attempts += 1
        return Sent(self._attempts, lease, worker_id, self._me, now, lease.needs)

    @staticmethod
    def _answered(sent: Sent, now: float) -> Settlement:
        usage = Usage(500, 400, 150, 0.5, 2.5)
        outcome = Outcome(None, None, ANSWER, None, "stop", "stub", usage, 3.0, 0.5)
        return Settlement(sent, outcome, Done(), "proven", now, ())


def _log_bytes(place: DatabasePlace) -> int:
    """A server's log is no one database's."""
    return 0 if isinstance(place, PostgresUrl) else place.with_name(place.name + "-wal").stat().st_size


class Hand(NamedTuple):
    """A coordinator in a process of its own."""

    pipe: Connection

    def turns(self, number: int) -> list[Turn]:
        """Have it take so many turns."""
        self.pipe.send(number)
        return list(self.pipe.recv())


@contextmanager
def coordinating(place: DatabasePlace, model: str) -> Iterator[Hand]:
    """A process that works the database at `place` while it is told to."""
    with _process(_obey, place, model) as pipe:
        yield Hand(pipe)


@contextmanager
def writing_beside(place: DatabasePlace, model: str, pause: float) -> Iterator[list[Turn]]:
    """A process that takes a turn every `pause` seconds. Its turns are there in the end."""
    turns: list[Turn] = []
    with _process(_go_on, place, model, pause) as pipe:
        # It is at work before anything else begins.
        pipe.recv()
        yield turns
        pipe.send(0)
        turns += pipe.recv()


@contextmanager
def _process(work: Callable[..., None], *args: object) -> Iterator[Connection]:
    mine, its = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(its, *args), daemon=True)
    process.start()
    its.close()
    try:
        yield mine
        mine.close()
        process.join()
    finally:
        process.kill()


def _obey(pipe: Connection, place: DatabasePlace, model: str) -> None:
    async def obey() -> None:
        async with _open(place, model) as coordinator:
            with suppress(EOFError):
                while True:
                    pipe.send([await coordinator.turn() for _ in range(pipe.recv())])

    asyncio.run(obey())


def _go_on(pipe: Connection, place: DatabasePlace, model: str, pause: float) -> None:
    async def go_on() -> None:
        async with _open(place, model) as coordinator:
            turns = [await coordinator.turn()]
            pipe.send(True)
            while not pipe.poll(pause):
                turns.append(await coordinator.turn())
            pipe.send(turns)

    asyncio.run(go_on())


@asynccontextmanager
async def _open(place: DatabasePlace, model: str) -> AsyncIterator[Coordinator]:
    async with open_database(place) as database:
        me = await database.write(lambda tx: register(tx, "here", os.getpid(), time.time()))
        worker = await database.write(lambda tx: know_worker(tx, "http://127.0.0.1:8080", "stub", "openai"))
        yield Coordinator(database, me, worker, model)
