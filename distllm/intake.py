"""Papers and questions into a job: files are read once, and prompts refer to what was read.

Every step is kept as it is done, so that a submit that was killed is gone on with, not begun again.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from distllm.documents import DocumentReader, Source
from distllm.domain.clock import Clock
from distllm.domain.models import Document
from distllm.domain.tokens import estimate_tokens
from distllm.presets import Preset, render_question, render_system
from distllm.store.database import Database
from distllm.store.sqlite import Tx
from distllm.store.submissions import NewJob, NewReading, build_prompts, create_job, save_document, unread_files

FRAME_TOKENS = 16
"""What a model's chat template adds around one message, from above."""

OnRead = Callable[[int, int], None]
"""Told how many files of how many have been read."""

ReadAs = Callable[[str], NewReading]


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for. `max_tokens` and `temperature` override the preset's where they are given."""

    sources: Sequence[Source]
    preset: Preset
    model: str
    name: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    priority: int = 0


async def create(database: Database, request: Request, clock: Clock) -> int:
    """Store a job with its questions and files, unread; return its id.

    The same request made again after it was cut short is the same job.

    What came through standard input is read first, and its text is stored in the transaction that makes the
    job: a submit that is killed while it reads it leaves no job, and a job never waits for a file that is
    gone. It counts as the same where its bytes are the same.
    """
    fleeting = await _read_fleeting(request.sources)
    files = [
        (source.name, f"stdin:{fleeting[i].sha256}" if i in fleeting else str(source.path), source.mtime)
        for i, source in enumerate(request.sources)
    ]
    preset = request.preset
    temperature = preset.temperature if request.temperature is None else request.temperature
    questions = []
    for template in preset.templates:
        max_tokens = request.max_tokens or template.max_tokens or preset.max_tokens
        questions.append((template, max_tokens, estimate_tokens(render_question(template)) + FRAME_TOKENS))
    asked = [(template.name, template.text, max_tokens) for template, max_tokens, _ in questions]
    same = [[path for _, path, _ in files], asked, request.model, temperature, request.priority, request.name]
    job = NewJob(
        name=request.name or f"{preset.name} on {_called(request.sources)}",
        preset=preset.name,
        model=request.model,
        params={"temperature": temperature},
        priority=request.priority,
        request_hash=hashlib.sha256(json.dumps(same).encode()).hexdigest(),
        questions=questions,
        files=files,
    )

    def transaction(tx: Tx) -> int:
        job_id = create_job(tx, job, clock.now())
        for ordinal, document in fleeting.items():
            save_document(tx, job_id, ordinal, document, _reading, clock.now())
        return job_id

    return await database.write(transaction)


async def _read_fleeting(sources: Sequence[Source]) -> dict[int, Document]:
    """Read the sources that will not be there again, by their places."""
    fleeting = {i: source.path for i, source in enumerate(sources) if source.fleeting}
    if not fleeting:
        return {}
    async with DocumentReader(children=1) as reader:
        return {i: await reader.read(path) for i, path in fleeting.items()}


async def build(database: Database, job_id: int, on_read: OnRead, clock: Clock) -> None:
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
    while not await database.write(lambda tx: build_prompts(tx, job_id, clock.now())):
        pass


async def _read(
    database: Database,
    job_id: int,
    unread: Sequence[tuple[int, str]],
    reader: DocumentReader,
    on_read: OnRead,
    clock: Clock,
) -> None:
    """Read all files at once, as many as the reader has hands; commit whatever is ready together."""
    finished: asyncio.Queue[tuple[int, Document, ReadAs]] = asyncio.Queue()

    async def read(ordinal: int, path: str) -> None:
        document = await reader.read(Path(path))
        read_as = lru_cache(maxsize=1)(_reading)
        # Counted here, not in the transaction, which others wait for.
        read_as(document.text)
        finished.put_nowait((ordinal, document, read_as))

    done = 0
    async with asyncio.TaskGroup() as group:
        for ordinal, path in unread:
            group.create_task(read(ordinal, path))
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


def _reading(text: str) -> NewReading:
    system = render_system(text)
    prefix_hash = hashlib.sha256(system.encode("utf-8")).hexdigest()
    return NewReading(prefix_hash, estimate_tokens(system) + FRAME_TOKENS)


def _called(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return sources[0].name
    folders = {source.path.parent.name for source in sources if not source.fleeting}
    return folders.pop() if len(folders) == 1 else f"{len(sources)} files"
