"""Exports of a large job that is answered, while a coordinator works another one beside it."""

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.fresh import peak_bytes
from distllm.export.formats import Format, written
from distllm.export.source import open_source
from distllm.export.target import save
from distllm.store.migrate import upgrade
from distllm.store.reads import open_reader
from tests.export.export_kit import fill
from tests.store.store_kit import add_job, open_sqlite

ANSWERED = 1
"""The number of the job that is exported."""

ANSWER_CHARACTERS = 400
OTHER_PAPERS, OTHER_QUESTIONS = 1000, 100


class Exported(NamedTuple):
    """One export: how long it took, the most memory of its process, and the size of its file."""

    seconds: float
    peak: int
    size: int


def store_answers(path: Path, papers: int, questions: int, model: str, others: int = OTHER_PAPERS) -> None:
    """A job with all its answers, and another to be worked, about as many other papers."""
    upgrade(path)
    with closing(open_sqlite(path)) as store:
        fill(store.connection, papers, questions, ANSWER_CHARACTERS)
        texts = [f"paper {number} has a few words" for number in range(others)]
        add_job(store, texts, [f"question {n}" for n in range(OTHER_QUESTIONS)], model=model)


def export(path: Path, form: Format, target: Path) -> Exported:
    """Write the answered job to a file."""
    began = time.perf_counter()
    asyncio.run(_export(path, form, target))
    return Exported(time.perf_counter() - began, peak_bytes(), target.stat().st_size)


async def _export(path: Path, form: Format, target: Path) -> None:
    async with open_reader(path) as reader:
        source = await open_source(reader, ANSWERED, wide=False)
        await save(written(source, form, False), target)
    assert source.states == {"done": source.job["total"]}, source.states
