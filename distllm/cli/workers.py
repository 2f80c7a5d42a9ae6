"""`distllm workers list` and `check`."""

import asyncio
import difflib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from distllm.cli.screen import out, safe, table, tell
from distllm.compose.checkup import Checked, check_workers
from distllm.compose.roster import Record, learnt_of, roster, seen_models
from distllm.config import Config
from distllm.domain.errors import UsageError
from distllm.domain.models import Health, WorkerType
from distllm.domain.places import DatabasePlace
from distllm.domain.words import number, span
from distllm.store.reads import Reader, is_made, open_reader
from distllm.workers.remedies import remedy_for

EXIT_SOME = 1
EXIT_NONE = 4

_NOBODY = "No worker is configured: `distllm workers scan` looks for servers, `distllm workers add` names one."


def list_workers(db: DatabasePlace, config: Path | None, as_json: bool) -> int:
    """Print the workers that are configured, and what the database knows of them; nobody is contacted."""
    return say_workers(asyncio.run(_known(db, Config.load(config))), as_json)


def say_workers(rows: list[Record], as_json: bool) -> int:
    """Print workers; return the exit code."""
    if as_json:
        out.print(json.dumps(rows), soft_wrap=True)
        return 0
    if rows:
        out.print(_table(rows))
        for row in rows:
            if row["error"] and row["healthy"] is not None:
                tell(f"  {row['id']}: {row['error']}")
    if not any(row["configured"] for row in rows):
        tell(_NOBODY, hang=0)
    return 0


def _table(rows: list[Record]) -> Table:
    columns = ["id", "type", "address", "model", "window", "seats", "health", "read/s", "write/s", "answers"]
    cells = [_row(row) for row in rows]
    if any(row["load_seconds"] is not None for row in rows):
        # Few servers tell it.
        columns.append("load")
        cells = [(*cell, _load(row)) for cell, row in zip(cells, rows, strict=True)]
    spare = ("type", "seats", *columns[10:], "address", "window", "model", "read/s", "write/s")
    numbers = ("window", "seats", "read/s", "write/s", "answers", *columns[10:])
    return table(columns, cells, numbers=numbers, whole=("health",), spare=spare)


def _load(row: Record) -> str:
    return "" if row["load_seconds"] is None else span(row["load_seconds"])


async def _known(db: DatabasePlace, config: Config) -> list[Record]:
    async with _reader(db) as reader:
        return await roster(config, reader)


@asynccontextmanager
async def _reader(db: DatabasePlace) -> AsyncIterator[Reader | None]:
    """The database, None while there is none."""
    if not await is_made(db):
        yield None
        return
    async with open_reader(db) as reader:
        yield reader


def _row(row: Record) -> tuple[Any, ...]:
    models = [model for model in row["models"] if row["model"] in (None, model["model"])]
    model = next((each for each in models if each["decode_rate"]), models[0] if models else {})
    windows = [n for n in (row["context_length"], model.get("context_length")) if n]
    return (
        row["id"],
        row["type"],
        row["address"],
        row["model"] or _names([each["model"] for each in row["models"]]),
        number(min(windows, default=None)),
        row["seats"],
        _health(row),
        number(row["prefill_rate"]),
        number(row["decode_rate"]),
        number(row["answers"]),
    )


def _health(row: Record) -> str:
    """As it was last seen; of one that is not configured nobody looks any more."""
    if not row["configured"]:
        return "not configured"
    return {None: "never seen", True: "healthy", False: "not healthy"}[row["healthy"]]


def check_now(db: DatabasePlace, config: Path | None, names: list[str], generate: bool, as_json: bool) -> int:
    """Ask the workers now how they are. 4 if none can be used, 1 if some cannot."""
    settings = Config.load(config)
    there = [worker.id for worker in settings.workers] or [WorkerType.EMBEDDED.value]
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"no worker is called {name!r}: {hint}there are {', '.join(there)}")
    found = asyncio.run(_check(db, settings, names, generate, as_json))
    if as_json:
        out.print(json.dumps([_as_record(each) | learnt for each, learnt in found]), soft_wrap=True)
    well = sum(each.wrong is None for each, _ in found)
    return 0 if well == len(found) else EXIT_SOME if well else EXIT_NONE


async def _check(
    db: DatabasePlace, config: Config, names: list[str], generate: bool, as_json: bool
) -> list[tuple[Checked, Record]]:
    """What each worker says now, with what was measured of it before."""
    found = []
    async with _reader(db) as reader:
        models = await seen_models(reader)
    async for each in check_workers(config, names, generate=generate):
        found.append((each, learnt_of(each.spec.model, models.get(each.identity, []), config)))
        if not as_json:
            _show(*found[-1])
    return found


def _show(each: Checked, learnt: Record) -> None:
    mark, style = ("ok", "green") if each.wrong is None else ("bad", "red")
    spec, health = each.spec, each.health
    out.print(
        Text(f"{mark:<4}", style=style) + Text(safe(f"{spec.name}: {spec.type} at {each.identity}")), soft_wrap=True
    )
    if each.wrong is not None:
        remedy = remedy_for(each.wrong)
        tell(f"    {each.wrong}{f'; {remedy}' if remedy else ''}", hang=0)
    if health.healthy:
        said = [described(health), seats(spec.slots, health), f"answered in {each.seconds:.2f} s"]
        if each.generated:
            said.append("its model answers")
        said += _measured(learnt)
        tell(f"    {'; '.join(said)}", hang=0)


def _measured(learnt: Record) -> list[str]:
    read, write, load = learnt["prefill_rate"], learnt["decode_rate"], learnt["load_seconds"]
    speeds = [f"{verb} {number(rate)}" for verb, rate in (("reads", read), ("writes", write)) if rate]
    said = [f"{' and '.join(speeds)} tokens a second, as measured"] if speeds else []
    return said if load is None else [*said, f"took {span(load)} to load"]


def described(health: Health) -> str:
    """The models of a server with their windows: those that are loaded first, and not all of many."""
    offers = sorted(health.offers, key=lambda offer: not offer.loaded)
    return (
        _names(
            [
                offer.model
                + (f" ({number(offer.context_length)} tokens)" if offer.context_length else "")
                + (", not loaded" if offer.loaded is False else "")
                for offer in offers
            ]
        )
        or "no model"
    )


def seats(limit: int | None, health: Health) -> str:
    """How many requests it takes at once."""
    if limit is not None:
        return f"{limit} at once (configured)"
    return "1 at once (it does not tell its slots)" if health.slots is None else f"{health.slots} at once"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return "; ".join(names[:5]) + more


def _as_record(each: Checked) -> Record:
    return {
        "id": each.spec.name,
        "type": str(each.spec.type),
        "address": each.identity,
        "well": each.wrong is None,
        "reachable": each.health.healthy,
        "generated": each.generated,
        "error": each.wrong,
        "remedy": remedy_for(each.wrong) or None if each.wrong else None,
        "seconds": round(each.seconds, 3),
        "slots": each.health.slots,
        "models": as_models(each.health),
    }


def as_models(health: Health) -> list[Record]:
    """The models of a server for programs."""
    return [
        {"model": offer.model, "context_length": offer.context_length, "loaded": offer.loaded, "digest": offer.digest}
        for offer in health.offers
    ]
