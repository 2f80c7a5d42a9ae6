"""A job as large as wanted, stored as `distllm submit` stores it: out of files, by distllm's intake."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.fresh import peak_bytes
from benchmarks.prompts import made_up_paper, vocabulary
from distllm.documents import find_files
from distllm.domain.clock import Clock
from distllm.domain.models import Template
from distllm.domain.places import DatabasePlace
from distllm.intake import Request, build, create
from distllm.presets import Preset
from distllm.store.database import open_database

SHORTEST, SPREAD = 1000, 997
"""Papers have from so many characters to so many more, each as many as the next has not."""


class Submitted(NamedTuple):
    """How long the files of a job took to be read and stored, and its prompts to be written; the most memory."""

    reading: float
    writing: float
    peak: int


def write_papers(folder: Path, number: int) -> list[Path]:
    """So many papers, as files of a new folder."""
    folder.mkdir()
    words = vocabulary()
    papers = [folder / f"{place:06}.txt" for place in range(number)]
    for place, paper in enumerate(papers):
        paper.write_text(made_up_paper(words, place, SHORTEST + place % SPREAD), encoding="utf-8")
    return papers


def submit(place: DatabasePlace, papers: Sequence[Path], questions: int, model: str) -> Submitted:
    """Store so many questions about each of the papers in a database at `place`, which is made if need be."""
    asked = tuple(Template(f"question_{n}", f"What does it say of matter {n}?") for n in range(questions))
    preset = Preset("large", "As many questions as are wanted", asked)
    return asyncio.run(_submit(place, Request(find_files(papers), preset, model), len(papers) * questions))


async def _submit(place: DatabasePlace, request: Request, prompts: int) -> Submitted:
    clock = Clock()
    read_at = 0.0

    async def weights() -> frozenset[str]:
        # Asked for between the reading of the files and the writing of the prompts.
        nonlocal read_at
        read_at = time.perf_counter()
        return frozenset()

    async def window(model: str) -> int | None:
        return None

    async with open_database(place) as database:
        began = time.perf_counter()
        created = await create(database, request, clock)
        await build(database, created.job_id, lambda done, total, what: None, clock, weights, window)
        ended = time.perf_counter()
        job = await database.read.job(created.job_id)
    assert job is not None
    assert job["pending"] == prompts, job
    return Submitted(read_at - began, ended - read_at, peak_bytes())
