"""Papers and questions into a job: files are read once, and prompts refer to what was read.

Every step is kept as it is done, so that a submit that was killed is gone on with, not begun again.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from distllm.documents import DocumentReader, Source, path_as_text, path_of_text, readable
from distllm.domain.clock import Clock
from distllm.domain.models import Document
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.presets import Preset, render_question, render_system
from distllm.store.control import go_on
from distllm.store.database import Database
from distllm.store.readings import NewReading
from distllm.store.rehearsal import Rehearsal, RehearsalOverError, rehearse
from distllm.store.sqlite import Tx
from distllm.store.submissions import (
    NewJob,
    build_prompts,
    create_job,
    save_document,
    unfinished_job,
    unread_files,
)

T = TypeVar("T")

HANDS = 8
"""How many files are on their way at once: more than the reader reads, so that it never waits for the next."""

MOST_UNWRITTEN = 64
"""How many documents may wait for the database, whose texts are held in memory."""

OnRead = Callable[[int, int], None]
"""Told how many files of how many have been read."""

ReadAs = Callable[[str], NewReading]

Weights = Callable[[], Awaitable[Collection[str]]]
"""Asked for the digests of what the workers have, once the files are read."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for. `max_tokens` and `temperature` override the preset's where they are given.

    A `fresh` one asks everything anew, whatever is answered already.
    """

    sources: Sequence[Source]
    preset: Preset
    model: str
    name: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    priority: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """The job of a request; `known` if the same request had begun it, and it had not ended."""

    job_id: int
    known: bool


async def create(database: Database, request: Request, clock: Clock) -> Created:
    """Store a job with its questions and files, unread.

    The same request made again before its job has ended is the same job, so that nothing is asked twice.

    What came through standard input is read first, and its text is stored in the transaction that makes the
    job: a submit that is killed while it reads it leaves no job, and a job never waits for a file that is
    gone. It counts as the same where its bytes are the same.
    """
    fleeting = await _read_fleeting(request.sources)
    job = _new_job(request, {place: document.sha256 for place, document in fleeting.items()})
    known_now = fleeting | {i: _refused(source) for i, source in enumerate(request.sources) if source.problem}

    def transaction(tx: Tx) -> Created:
        known = unfinished_job(tx, job.request_hash)
        if known is not None:
            go_on(tx, [known])
            return Created(known, known=True)
        job_id = create_job(tx, job, clock.now())
        for ordinal, document in known_now.items():
            save_document(tx, job_id, ordinal, document, _reading, clock.now())
        return Created(job_id, known=False)

    return await database.write(transaction)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would be: `unreadable` are (name, problem) of the files that would not be asked about."""

    name: str
    model: str
    files: int
    unreadable: Sequence[tuple[str, str]]
    counts: Rehearsal


async def plan(
    database: Database,
    request: Request,
    on_read: OnRead,
    clock: Clock,
    weights: Weights,
    identities: Collection[str],
) -> Plan:
    """Read all files and say what the job would be, without storing it. `identities` are the fleet's workers."""
    found: dict[int, tuple[Document, NewReading]] = {}
    async with DocumentReader() as reader:

        async def read(ordinal: int, source: Source) -> None:
            document = _refused(source) if source.problem else await reader.read(source.path)
            # Of a long shelf only the lengths are kept.
            found[ordinal] = replace(document, text=""), _reading(document.text)
            on_read(len(found), len(request.sources))

        left = enumerate(request.sources)
        async with asyncio.TaskGroup() as group:
            for _ in range(HANDS):
                group.create_task(_each(left, read))
    documents = [found[ordinal] for ordinal in range(len(request.sources))]
    job, digests = _new_job(request, {}), await weights()
    try:
        await database.write(lambda tx: rehearse(tx, job, documents, digests, identities, clock.now()))
    except RehearsalOverError as over:
        counts = over.rehearsal
    unreadable = [
        (source.name, document.problem)
        for source, (document, _) in zip(request.sources, documents, strict=True)
        if document.problem is not None
    ]
    return Plan(job.name, job.model, len(documents), unreadable, counts)


def _new_job(request: Request, piped: Mapping[int, str | None]) -> NewJob:
    """The job of a request; `piped` are the hashes of the sources that came through standard input."""
    files = [
        (source.name, f"stdin:{piped[i]}" if i in piped else path_as_text(source.path), source.mtime)
        for i, source in enumerate(request.sources)
    ]
    preset = request.preset
    temperature = preset.temperature if request.temperature is None else request.temperature
    questions = []
    for template in preset.templates:
        max_tokens = request.max_tokens or template.max_tokens or preset.max_tokens
        questions.append((template, max_tokens, estimate_tokens(render_question(template)) + FRAME_TOKENS))
    asked = [(template.name, template.text, max_tokens) for template, max_tokens, _ in questions]
    # A file that was changed since makes it another request.
    read = [(path, 0.0 if i in piped else mtime) for i, (_, path, mtime) in enumerate(files)]
    same = [read, asked, request.model, temperature, request.priority, request.name, request.fresh]
    return NewJob(
        name=request.name or f"{preset.name} on {_called(request.sources)}",
        preset=preset.name,
        model=request.model,
        params={"temperature": temperature},
        priority=request.priority,
        request_hash=hashlib.sha256(json.dumps(same).encode()).hexdigest(),
        questions=questions,
        files=files,
        fresh=request.fresh,
    )


def _refused(source: Source) -> Document:
    """What is known of a source that is not to be read."""
    return Document(sha256=None, text="", title=None, pages=None, problem=source.problem)


async def _read_fleeting(sources: Sequence[Source]) -> dict[int, Document]:
    """Read the sources that will not be there again, by their places."""
    fleeting = {i: source.path for i, source in enumerate(sources) if source.fleeting}
    if not fleeting:
        return {}
    async with DocumentReader(children=1) as reader:
        return {i: await reader.read(path) for i, path in fleeting.items()}


async def build(database: Database, job_id: int, on_read: OnRead, clock: Clock, weights: Weights) -> None:
    """Read the files of a job that are still unread, then write its prompts; afterwards it can be worked.

    Harmless if another process builds the same job at the same time.
    """
    unread = await database.write(lambda tx: unread_files(tx, job_id))
    if unread:
        async with DocumentReader() as reader:
            try:
                await _read(database, job_id, unread, reader, on_read, clock)
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
    digests = await weights()
    while not await database.write(lambda tx: build_prompts(tx, job_id, clock.now(), digests)):
        pass


async def _read(
    database: Database,
    job_id: int,
    unread: Sequence[tuple[int, str]],
    reader: DocumentReader,
    on_read: OnRead,
    clock: Clock,
) -> None:
    """Read files at once, as many as the reader can; commit whatever is ready together."""
    finished: asyncio.Queue[tuple[int, Document, ReadAs]] = asyncio.Queue(MOST_UNWRITTEN)

    async def read(ordinal: int, path: str) -> None:
        document = await reader.read(path_of_text(path))
        read_as = lru_cache(maxsize=1)(_reading)
        # Counted here, not in the transaction, which others wait for.
        read_as(document.text)
        await finished.put((ordinal, document, read_as))

    done = 0
    left = iter(unread)
    async with asyncio.TaskGroup() as group:
        for _ in range(HANDS):
            group.create_task(_each(left, read))
        while done < len(unread):
            batch = [await finished.get()]
            while not finished.empty():
                batch.append(finished.get_nowait())

            def transaction(tx: Tx, batch: list[tuple[int, Document, ReadAs]] = batch) -> None:
                for ordinal, document, read_as in batch:
                    save_document(tx, job_id, ordinal, document, read_as, clock.now())

            await database.write(transaction)
            done += len(batch)
            on_read(done, len(unread))


async def _each(left: Iterator[tuple[int, T]], work: Callable[[int, T], Awaitable[None]]) -> None:
    """One hand: does the work for what is left, one after another, which other hands take from too."""
    for ordinal, item in left:
        await work(ordinal, item)


def _reading(text: str) -> NewReading:
    system = render_system(text)
    prefix_hash = hashlib.sha256(system.encode("utf-8")).hexdigest()
    return NewReading(prefix_hash, estimate_tokens(system) + FRAME_TOKENS)


def _called(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return sources[0].name
    folders = {source.path.parent.name for source in sources if not source.fleeting}
    return readable(folders.pop()) if len(folders) == 1 else f"{len(sources)} files"
