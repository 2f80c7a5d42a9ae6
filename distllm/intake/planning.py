"""What a job would be: all is read and split, and nothing stored."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from distllm.balancer.forecast import Speed, Work, seconds_for
from distllm.documents import DocumentReader, Source
from distllm.domain.clock import Clock
from distllm.intake.building import FILES_READ, OnStep, Weights, Window, by_hands, refused
from distllm.intake.request import Request, new_job
from distllm.intake.splitting import Splitter, reading_of
from distllm.store.database import Database
from distllm.store.rehearsal import NewText, Rehearsal, RehearsalOverError, rehearse


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would be: `unreadable` are (name, problem) of the files that would not be asked about.

    `seconds` is what it would take at the speeds measured so far, None where too few were.
    """

    name: str
    model: str
    files: int
    unreadable: Sequence[tuple[str, str]]
    counts: Rehearsal
    seconds: float | None


async def plan(
    database: Database,
    request: Request,
    on_step: OnStep,
    clock: Clock,
    weights: Weights,
    window: Window,
    identities: Collection[str],
) -> Plan:
    """Read all files and say what the job would be, without storing it. `identities` are the fleet's workers."""
    job, digests, largest = new_job(request, {}), await weights(), await window(request.model)
    splitter = Splitter.of(largest, job.asked, job.merged, references=job.references)
    found: dict[int, NewText] = {}
    async with DocumentReader() as reader:

        async def read(ordinal: int, source: Source) -> None:
            document = refused(source) if source.problem else await reader.read(source.path)
            reading = reading_of(document.text)
            long = splitter is not None and document.problem is None and reading.tokens > splitter.longest
            parts = await splitter.split(document.text, reader) if splitter is not None and long else ()
            # Of a long shelf only the lengths are kept.
            found[ordinal] = NewText(replace(document, text=""), reading, parts)
            on_step(len(found), len(request.sources), FILES_READ)

        await by_hands(enumerate(request.sources), read)
    texts = [found[ordinal] for ordinal in range(len(request.sources))]
    try:
        await database.write(lambda tx: rehearse(tx, job, texts, largest, digests, identities, clock.now()))
    except RehearsalOverError as over:
        counts = over.rehearsal
    unreadable = [
        (source.name, text.document.problem)
        for source, text in zip(request.sources, texts, strict=True)
        if text.document.problem is not None
    ]
    return Plan(job.name, job.model, len(texts), unreadable, counts, _seconds(counts))


_COUNTED = 0.9
"""Of tokens that are estimated from above, the share that servers count, on the whole."""


def _seconds(counts: Rehearsal) -> float | None:
    """How long the workers are at it together. What needs a large window waits for those who have one."""
    longest = 0.0
    for load in counts.loads:
        able = [pace for pace in counts.paces if pace.window is None or pace.window > load.above]
        work = Work(_COUNTED * load.read, load.written)
        seconds = seconds_for(work, [Speed(pace.read, pace.write * pace.seats) for pace in able])
        if seconds is None and work.read:
            return None
        longest = max(longest, seconds or 0.0)
    return longest
