"""Papers and questions into a job: files are read once, and prompts refer to what was read.

Every step is kept as it is done, so that a submit that was killed is gone on with, not begun again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from distllm.documents import DocumentReader, Source, path_of_text
from distllm.domain.clock import Clock
from distllm.domain.models import Document
from distllm.intake.request import Request, new_job
from distllm.intake.splitting import Splitter, reading_of
from distllm.store.control import go_on
from distllm.store.database import Database
from distllm.store.duties import duty
from distllm.store.parts import keep_window, long_documents, save_parts, terms
from distllm.store.readings import NewReading
from distllm.store.submissions import (
    build_prompts,
    create_job,
    known_job,
    save_document,
    unread_files,
)
from distllm.store.tx import Tx

T = TypeVar("T")

HANDS = 8
"""How many files are on their way at once: more than the reader reads, so that it never waits for the next."""

MOST_UNWRITTEN = 64
"""How many documents may wait for the database, whose texts are held in memory."""

OnStep = Callable[[int, int, str], None]
"""Told how many of how many are done, and of what, such as `files read`."""

FILES_READ = "files read"

ReadAs = Callable[[str], NewReading]

Weights = Callable[[], Awaitable[Collection[str]]]
"""Asked for the digests of what the workers have, once the files are read."""

Window = Callable[[str], Awaitable[int | None]]
"""Asked for the largest context window that the workers have for a model, None where nobody can tell one."""


@dataclass(frozen=True, slots=True)
class Created:
    """The job of a request; `known` if the same request had begun it."""

    job_id: int
    known: bool


async def create(database: Database, request: Request, clock: Clock) -> Created:
    """Store a job with its questions and files, unread.

    The same request made again before its job has ended is the same job, so that nothing is asked twice. With a
    key it is the same job for ever; KeyTakenError where another request bore the key.

    What came through standard input is read first, and its text is stored in the transaction that makes the
    job: a submit that is killed while it reads it leaves no job, and a job never waits for a file that is
    gone. It counts as the same where its bytes are the same.
    """
    fleeting = await _read_fleeting(request.sources)
    job = new_job(request, {place: document.sha256 for place, document in fleeting.items()})
    known_now = fleeting | {
        i: source.document or refused(source)
        for i, source in enumerate(request.sources)
        if source.document or source.problem
    }
    read_as = lru_cache(maxsize=None)(reading_of)
    # Counted here, not in the transaction, which others wait for.
    await asyncio.to_thread(lambda: [read_as(document.text) for document in known_now.values()])

    def transaction(tx: Tx) -> Created:
        known = known_job(tx, job)
        if known is not None:
            if job.key is None:
                go_on(tx, [known])
            return Created(known, known=True)
        job_id = create_job(tx, job, clock.now())
        for ordinal, document in known_now.items():
            save_document(tx, job_id, ordinal, document, read_as, clock.now())
        return Created(job_id, known=False)

    return await database.write(transaction)


def refused(source: Source) -> Document:
    """What is known of a source that is not to be read."""
    return Document(sha256=None, text="", title=None, pages=None, problem=source.problem)


async def _read_fleeting(sources: Sequence[Source]) -> dict[int, Document]:
    """Read the sources that will not be there again, by their places."""
    fleeting = {i: source.path for i, source in enumerate(sources) if source.fleeting}
    if not fleeting:
        return {}
    async with DocumentReader(children=1) as reader:
        return {i: await reader.read(path) for i, path in fleeting.items()}


async def build(
    database: Database, job_id: int, on_step: OnStep, clock: Clock, weights: Weights, window: Window
) -> None:
    """Read the files of a job that are still unread, then write its prompts; afterwards it can be worked.

    Documents that no window holds are split. Harmless if another process builds the same job at the same time; of
    those that share a server, which need not all see its files, the first does it whole.
    """
    async with duty(database.place, f"building job {job_id}"), DocumentReader() as reader:
        try:
            await _read(database, job_id, reader, on_step, clock)
            digests = await weights()
            await _split(database, job_id, reader, on_step, window)
        except ExceptionGroup as several:
            raise _first(several) from None
        while not await database.write(lambda tx: build_prompts(tx, job_id, clock.now(), digests)):
            pass


def _first(error: Exception) -> Exception:
    """What went wrong first, however many hands it stopped."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _split(database: Database, job_id: int, reader: DocumentReader, on_step: OnStep, window: Window) -> None:
    """Plan the parts of the documents that are too long for the window that the job remembers, or learns now."""
    job = await database.write(lambda tx: terms(tx, job_id))
    if job.open:
        largest = await window(job.model)
        job = await database.write(lambda tx: keep_window(tx, job_id, largest))
    splitter = Splitter.of(job.window, job.questions, job.merges, references=job.references)
    if splitter is None:
        return
    longest, done = splitter.longest, 0
    long = await database.write(lambda tx: long_documents(tx, job_id, longest))

    async def split(ordinal: int, document_id: int) -> None:
        nonlocal done
        parts = await splitter.split(await database.read.text(document_id), reader)
        await database.write(lambda tx: save_parts(tx, job_id, ordinal, parts))
        done += 1
        on_step(done, len(long), "long files split")

    await by_hands(long, split)


async def _read(database: Database, job_id: int, reader: DocumentReader, on_step: OnStep, clock: Clock) -> None:
    """Read files at once, as many as the reader can; commit whatever is ready together."""
    unread = await database.write(lambda tx: unread_files(tx, job_id))
    finished: asyncio.Queue[tuple[int, Document, ReadAs]] = asyncio.Queue(MOST_UNWRITTEN)

    async def read(ordinal: int, path: str) -> None:
        document = await reader.read(path_of_text(path))
        read_as = lru_cache(maxsize=1)(reading_of)
        # Counted here, not in the transaction, which others wait for.
        read_as(document.text)
        await finished.put((ordinal, document, read_as))

    async def write() -> None:
        done = 0
        while done < len(unread):
            batch = [await finished.get()]
            while not finished.empty():
                batch.append(finished.get_nowait())

            def transaction(tx: Tx, batch: list[tuple[int, Document, ReadAs]] = batch) -> None:
                for ordinal, document, read_as in batch:
                    save_document(tx, job_id, ordinal, document, read_as, clock.now())

            await database.write(transaction)
            done += len(batch)
            on_step(done, len(unread), FILES_READ)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(by_hands(unread, read))


async def by_hands(items: Iterable[tuple[int, T]], work: Callable[[int, T], Awaitable[None]]) -> None:
    """Do the work for all items, a few at a time, each hand taking the next that is left."""
    left = iter(items)

    async def each() -> None:
        for ordinal, item in left:
            await work(ordinal, item)

    async with asyncio.TaskGroup() as group:
        for _ in range(HANDS):
            group.create_task(each())
