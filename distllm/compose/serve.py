"""The service: a coordinator without an end, and the rooms that are open to HTTP meanwhile."""

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, assert_never

from aiohttp import web

from distllm import __version__
from distllm.compose.fleet import Fleet, model_for, models_of, open_fleet
from distllm.compose.roster import roster
from distllm.compose.run import Run, finish_begun, inquiries, known_weights
from distllm.config import Config, preset_folders
from distllm.dispatcher.direct import Direct
from distllm.documents import DocumentReader
from distllm.domain.clock import Clock
from distllm.domain.errors import DistllmError
from distllm.domain.events import Answered, Event, Leased, Listener, Noticed, TriedInVain, WorkerChanged, to_all
from distllm.domain.hosts import is_loopback
from distllm.domain.hours import Hours
from distllm.domain.places import DatabasePlace, PostgresUrl
from distllm.intake import build
from distllm.service import Desk, Guard, make_app
from distllm.service.api import api_room
from distllm.service.glances import Glances
from distllm.service.health import health_room
from distllm.service.hub import Hub
from distllm.service.instruments import Instruments
from distllm.service.metrics import metrics_room
from distllm.service.openai import Clerk, openai_room
from distllm.service.page import page_rooms
from distllm.service.pulse import Pulse
from distllm.service.token import checked, kept_token, token_file
from distllm.store.database import Database, open_database
from distllm.store.duties import duty
from distllm.store.reads import open_reader
from distllm.store.served import Served, alone, announced
from distllm.store.tx import StoreError

LOOKS_LAST_SECONDS = 15.0
"""How long what workers said of themselves holds for those who submit."""

LEAVE_SECONDS = 3.0
"""How long requests that are being answered may take once the work has ended."""

DUTY_AGAIN_SECONDS = 10.0

logger = logging.getLogger("distllm.service")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service listens, and the token that it wants of those who come.

    The token may be `kept` in a file beside the database, and be new there. `names` are what others call this machine.
    """

    host: str
    port: int
    token: str | None
    names: Sequence[str] = ()
    kept: Path | None = None
    new_token: bool = False

    @classmethod
    def of(cls, db: DatabasePlace, host: str, port: int, given: str | None, names: Sequence[str] = ()) -> "Place":
        """A place whose token is `given`, or kept beside the database where others than this machine can come.

        Raises DistllmError where a token is no good, or cannot be kept, as beside a database on a server.
        """
        if given:
            return cls(host, port, checked(given, "DISTLLM_TOKEN"), names)
        if is_loopback(host):
            return cls(host, port, None, names)
        if isinstance(db, PostgresUrl):
            raise DistllmError(
                f"others can come to {host}, and no token is kept beside {db}: give one as DISTLLM_TOKEN"
            )
        token, new = kept_token(db)
        return cls(host, port, token, names, kept=token_file(db), new_token=new)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that listens at `url`."""

    url: str
    database: Database
    fleet: Fleet
    run: Run
    hub: Hub


@asynccontextmanager
async def serving(
    db: DatabasePlace, config: Config, place: Callable[[], Place], hours: Hours | None, listener: Listener, clock: Clock
) -> AsyncIterator[Service]:
    """Open a database to all who come, until the end of the block; in the block, have its `run` work.

    Raises DistllmError where it is served already, or where nobody can listen.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(db))
        stack.enter_context(alone(db))
        where = place()
        fleet = await stack.enter_async_context(open_fleet(config))
        documents = await stack.enter_async_context(DocumentReader())
        hub = Hub(f"{os.getpid():x}{int(clock.now()):x}")
        listeners = [listener, lambda event: _publish(event, hub)]
        rooms = [health_room(), api_room(), openai_room(), *page_rooms(where.token)]
        if config.enable_metrics:
            instruments = Instruments(__version__, {worker.name for worker, _ in fleet.workers})
            listeners.append(instruments.observe)
            database.hear_commits(instruments.observe_commit)
            rooms.append(metrics_room(instruments))
        run = Run(
            database,
            config,
            fleet,
            to_all(listeners),
            clock,
            no_worker_limit=math.inf,
            hours=hours,
        )
        # Whoever asks must not hold up what the coordinator reads.
        apart = replace(database, read=await stack.enter_async_context(open_reader(db)))
        desk = _desk(apart, config, fleet, documents, hub, run, hours, clock)
        url = await _listen(stack, make_app(desk, Guard(where.host, where.token, where.names), rooms), where)
        stack.callback(hub.close)
        stack.enter_context(announced(db, Served(os.getpid(), url, None if hours is None else str(hours))))
        for task in (Pulse(apart.read, hub).run(), _see_to_batches(db, desk), _finish_begun(database, fleet, clock)):
            stack.push_async_callback(_end, asyncio.create_task(task))
        yield Service(url, database, fleet, run, hub)


def _desk(
    database: Database,
    config: Config,
    fleet: Fleet,
    documents: DocumentReader,
    hub: Hub,
    run: Run,
    hours: Hours | None,
    clock: Clock,
) -> Desk:
    looked_at = clock.ticks()

    async def choose_model(wanted: str | None) -> str:
        refresh()
        return await model_for(fleet, wanted, config)

    def refresh() -> None:
        nonlocal looked_at
        if clock.ticks() - looked_at >= LOOKS_LAST_SECONDS:
            looked_at = clock.ticks()
            fleet.forget()

    async def models() -> Mapping[str, int | None]:
        refresh()
        return await models_of(fleet)

    async def build_prompts(job_id: int) -> None:
        await build(database, job_id, lambda done, total, what: None, clock, *inquiries(database, fleet))

    return Desk(
        database=database,
        clock=clock,
        documents=documents,
        hub=hub,
        glances=Glances(database, clock),
        choose_model=choose_model,
        models=models,
        weights=partial(known_weights, database, fleet),
        direct=Direct(
            [worker for worker, _ in fleet.workers],
            fleet.look,
            fleet.names_of,
            request_timeout=config.request_timeout,
            rng=Random(time.time_ns()),
        ),
        build=build_prompts,
        roster=lambda: roster(config, database.read),
        aliases=config.aliases(),
        presets=preset_folders(),
        coordinating=lambda: run.coordinating,
        leaving=lambda: run.interrupted,
        references=not config.leave_out_references,
        version=__version__,
        hours=None if hours is None else str(hours),
    )


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """What is said of connections: what strangers send that is no HTTP is no mistake of ours."""

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:
        """Log for those who want to see everything."""
        super().log(logging.DEBUG, msg, *args, **more)


async def _listen(stack: AsyncExitStack, app: web.Application, place: Place) -> str:
    quiet: Any = _Quiet(logger)
    runner = web.AppRunner(app, access_log=None, logger=quiet, shutdown_timeout=LEAVE_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, place.host, place.port).start()
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()
        raise DistllmError(
            f"cannot listen at {place.host}, port {place.port}: {reason}; name another with --host or --port"
        ) from None
    port = runner.addresses[0][1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _see_to_batches(db: DatabasePlace, desk: Desk) -> None:
    """Have one clerk for a database, however many serve it."""
    while True:
        try:
            async with duty(db, "batches") as lost:
                work = asyncio.create_task(Clerk(desk).run())
                try:
                    await lost.wait()
                finally:
                    await _end(work)
        except StoreError as error:
            logger.error("batches wait: %s", error)
            await asyncio.sleep(DUTY_AGAIN_SECONDS)


async def _finish_begun(database: Database, fleet: Fleet, clock: Clock) -> None:
    """Go on with submits that were cut short, while the rest is worked."""
    try:
        await finish_begun(database, fleet, lambda done, total, what: None, clock)
    except DistllmError as error:
        logger.error("%s", error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _publish(event: Event, hub: Hub) -> None:
    facts: dict[str, Any] = asdict(event)
    match event:
        case Answered():
            hub.publish("answered", facts)
        case TriedInVain():
            hub.publish("tried_in_vain", facts)
        case WorkerChanged():
            hub.publish("worker", facts)
        case Noticed():
            hub.publish("notice", facts)
        case Leased():
            pass
        case _:
            assert_never(event)
