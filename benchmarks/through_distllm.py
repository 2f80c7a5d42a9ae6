"""distllm as a contender: a job stored by its intake, worked by the run that commands and `LoadBalancer` use."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.prompts import made_up_paper, vocabulary
from distllm.compose.fleet import open_fleet
from distllm.compose.run import Run
from distllm.config import Config
from distllm.documents import find_files
from distllm.domain.clock import Clock
from distllm.domain.events import Event, Listener
from distllm.domain.places import DatabasePlace
from distllm.intake import Request, build, create
from distllm.presets import Preset
from distllm.store.database import open_database


async def store_job(
    place: DatabasePlace, preset: Preset, documents: int, characters: int, model: str, max_tokens: int
) -> None:
    """Store the questions of a preset about so many made-up papers in a new database at `place`."""
    words, clock = vocabulary(), Clock()
    with TemporaryDirectory() as folder:
        for number in range(documents):
            paper = made_up_paper(words, number, characters)
            (Path(folder) / f"{number:06}.txt").write_text(paper, encoding="utf-8")
        request = Request(find_files([Path(folder)]), preset, model, max_tokens=max_tokens)
        async with open_database(place) as database:
            created = await create(database, request, clock)
            await build(database, created.job_id, lambda done, total, what: None, clock, _no_weights, _no_window)


async def work(
    place: DatabasePlace,
    ports: Sequence[int],
    listener: Listener,
    enough: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> float:
    """Work all jobs of a database on the servers at `ports`; the seconds from the first look at them to the end.

    It stops in order once there is `enough`, which is looked at whenever something is told.
    """
    workers = [{"id": f"w{number}", "type": "openai", "port": port} for number, port in enumerate(ports)]
    config = Config.of({"workers": workers, **settings}, "the benchmark", {})
    async with open_fleet(config) as fleet, open_database(place) as database:

        def hear(event: Event) -> None:
            listener(event)
            if not run.interrupted and enough():
                run.stop()

        run = Run(database, config, fleet, hear, Clock())
        began = time.perf_counter()
        await run.until_done(lambda _: True, lambda _: None)
        return time.perf_counter() - began


async def _no_weights() -> frozenset[str]:
    return frozenset()


async def _no_window(model: str) -> int | None:
    return None
