"""What every handler of the service finds at hand."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from distllm.dispatcher.direct import Direct
from distllm.documents import DocumentReader
from distllm.domain.clock import Clock
from distllm.service.glances import Glances
from distllm.service.hub import Hub
from distllm.store.database import Database

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """The database and what the fleet is asked for.

    `choose_model` says which model a job gets that wants this one, or any; `models` are those that workers have now,
    each with its largest window, and `weights` the digests that they are known to have; `direct` asks one question at
    once; `build` writes the prompts of a job
    whose files are read; `roster` tells of the workers; `aliases` are groups of names of one model. Presets are
    looked for in `presets`; without `references`, those of documents that are split are not read. `coordinating`
    is whether this process leases prompts now, `leaving` whether it was told to stop.
    """

    database: Database
    clock: Clock
    documents: DocumentReader
    hub: Hub
    glances: Glances
    choose_model: Callable[[str | None], Awaitable[str]]
    models: Callable[[], Awaitable[Mapping[str, int | None]]]
    weights: Callable[[], Awaitable[Collection[str]]]
    direct: Direct
    build: Callable[[int], Awaitable[None]]
    roster: Callable[[], Awaitable[list[Record]]]
    aliases: Sequence[Sequence[str]]
    presets: Sequence[Path]
    coordinating: Callable[[], bool]
    leaving: Callable[[], bool]
    references: bool
    version: str
    hours: str | None = None

    def names_of(self, model: str) -> Sequence[str]:
        """All that a model is called."""
        return next((group for group in self.aliases if model in group), (model,))


DESK = web.AppKey("desk", Desk)
