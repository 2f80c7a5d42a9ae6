"""`distllm serve`."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distllm.cli.screen import Ticker, err, out
from distllm.compose.serve import Place, Service, serving
from distllm.config import Config
from distllm.domain.clock import Clock
from distllm.domain.events import Answered, Event, Leased, Noticed, TriedInVain, WorkerChanged
from distllm.domain.hours import Hours
from distllm.domain.places import DatabasePlace
from distllm.domain.words import count, number
from distllm.insights import progress

TOKEN = "DISTLLM_TOKEN"
EVERY_SECONDS = 0.5
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and what others call this machine."""

    host: str
    port: int
    names: Sequence[str]


def serve_jobs(db: DatabasePlace, config: Path | None, at: Listen, hours: str | None, as_json: bool) -> int:
    """Work whatever is submitted until told to stop; return the exit code."""
    settings, kept = Config.load(config), None if hours is None else Hours.parse(hours)
    return asyncio.run(_serve(db, settings, at, kept, as_json))


async def _serve(db: DatabasePlace, config: Config, at: Listen, hours: Hours | None, as_json: bool) -> int:
    ticker = Ticker()
    places: list[Place] = []

    def place() -> Place:
        places.append(Place.of(db, at.host, at.port, os.environ.get(TOKEN), at.names))
        return places[-1]

    async with serving(db, config, place, hours, lambda event: _tell(event, ticker), Clock()) as service:
        service.run.stop_on_signals()
        _say_where(db, service, places[-1], hours, ticker, as_json)
        watching = asyncio.create_task(_watch(service, ticker)) if err.is_terminal else None
        try:
            await service.run.until_stopped(
                lambda pid: ticker.say(f"process {pid} works this database already; taking over when it ends")
            )
        finally:
            if watching is not None:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
            ticker.clear()
    if service.run.hurried:
        ticker.say("stopped at once; what was in flight will be asked again. Go on with: distllm serve")
        return EXIT_INTERRUPTED
    ticker.say("stopped; all answers are kept. Go on with: distllm serve")
    return 0


def _say_where(
    db: DatabasePlace, service: Service, place: Place, hours: Hours | None, ticker: Ticker, as_json: bool
) -> None:
    if place.new_token:
        ticker.say(f"whoever comes needs this token, kept in {place.kept}: {place.token}")
    elif place.token is not None:
        ticker.say(f"whoever comes needs the token {f'of {TOKEN}' if place.kept is None else f'in {place.kept}'}")
    if service.fleet.notice is not None:
        ticker.say(service.fleet.notice)
    if as_json:
        told = {
            "url": service.url,
            "pid": os.getpid(),
            "database": str(db),
            "hours": None if hours is None else str(hours),
        }
        out.print(json.dumps(told), soft_wrap=True)
    else:
        within = "" if hours is None else f", within {hours}"
        out.print(f"Serving {db} at {service.url} (API: {service.url}/api/v1){within}; Ctrl-C stops it", soft_wrap=True)
    sys.stdout.flush()


def _tell(event: Event, ticker: Ticker) -> None:
    match event:
        case WorkerChanged(worker, healthy, error):
            if not healthy:
                ticker.say(f"worker {worker} does not answer: {error}")
            elif error:
                ticker.say(f"worker {worker}: {error}")
        case TriedInVain(worker=worker, error=error, final=True, job_id=job_id):
            ticker.say(f"job {job_id}, worker {worker}: {error} (given up)")
        case Noticed(text):
            ticker.say(text)
        case TriedInVain() | Answered() | Leased():
            pass


async def _watch(service: Service, ticker: Ticker) -> None:
    """On a terminal, show how far the jobs are."""
    reader = service.database.read
    while True:
        jobs = [job["job_id"] for job in await reader.unfinished()]
        states = [state for job_id in jobs if (state := await progress(reader, job_id, time.time())) is not None]
        done, total = sum(state.done for state in states), sum(state.total for state in states)
        line = f"{count(len(states), 'job')}: {number(done)} of {count(total, 'prompt')} answered"
        if service.run.interrupted:
            line += "; stopping when what is in flight has ended (Ctrl-C again stops at once)"
        ticker.show(line if states else "waiting for jobs")
        await asyncio.sleep(EVERY_SECONDS)
