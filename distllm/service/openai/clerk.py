"""Who sees to batches: looks through what was sent, makes a job of it, and writes what came of that.

Each step is some short transactions, and what they leave says where to go on: a clerk that is killed at any
point is followed by another that does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

from distllm.balancer.models import ANY_MODEL
from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.orders import EndedError, order_cancel
from distllm.service.desk import Desk
from distllm.service.openai.lines import Inspector, Maker, lines_of
from distllm.service.openai.results import Results
from distllm.store.batches import (
    accept_batch,
    add_lines,
    begin_batch,
    cancel_batch,
    fail_batch,
    finalize_batch,
    unended_batches,
)
from distllm.store.files import chunks_of, file_of, remove_gone
from distllm.store.reads import Record
from distllm.store.requests import CHUNK_REQUESTS

EVERY_SECONDS = 0.5
AFTER_A_FAULT_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 60.0
"""How often files are looked for that have had their time."""

HALF_SENT_SECONDS = 3_600.0
"""What was begun so long before the clerk and has no end is of a process that is gone: another may send for long."""

logger = logging.getLogger("distllm.service")


class Clerk:
    """One for a database."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._database = desk.database
        self._clock = desk.clock
        self._began = desk.clock.now()
        self._looked = -LOOK_AGAIN_SECONDS
        self._inspections: dict[int, Inspector] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            well = await _safely(self.step())
            await asyncio.sleep(EVERY_SECONDS if well else AFTER_A_FAULT_SECONDS)

    async def step(self) -> bool:
        """Take each batch as far as it can go now; false if that of one went wrong, which is logged."""
        if self._clock.ticks() - self._looked >= LOOK_AGAIN_SECONDS:
            self._looked = self._clock.ticks()
            gone = self._began - HALF_SENT_SECONDS
            while await self._database.write(lambda tx: remove_gone(tx, gone, self._clock.now())):
                pass
        batches = await unended_batches(self._database.read)
        waiting = {batch["id"] for batch in batches if batch["in_progress_at"] is None}
        self._inspections = {key: each for key, each in self._inspections.items() if key in waiting}
        return all([await _safely(self._advance(batch)) for batch in batches])

    async def _advance(self, batch: Record) -> None:
        late = self._clock.now() >= batch["expires_at"]
        if batch["cancelling_at"] is not None:
            await self._stop(batch)
        elif batch["in_progress_at"] is None and batch["job_finished_at"] is not None:
            # Whoever cancelled the job while its lines were written wants nothing of the batch.
            await self._database.write(lambda tx: cancel_batch(tx, batch["key"], self._clock.now()))
        elif batch["in_progress_at"] is None:
            await (self._give_up(batch) if late else self._begin(batch))
        elif batch["job_finished_at"] is not None or late:
            await self._finish(batch)

    async def _stop(self, batch: Record) -> None:
        await self._end_job(batch)
        await self._write_results(batch)

    async def _finish(self, batch: Record) -> None:
        now = self._clock.now()
        await self._database.write(lambda tx: finalize_batch(tx, batch["id"], now))
        if batch["job_finished_at"] is None:
            await self._end_job(batch)
        await self._write_results(batch | {"finalizing_at": batch["finalizing_at"] or now})

    async def _write_results(self, batch: Record) -> None:
        status = await Results(self._database, batch, self._clock.now()).write()
        logger.info("%s is %s", batch["key"], status)

    async def _end_job(self, batch: Record) -> None:
        if batch["job_id"] is None:
            return
        # It may have ended first.
        with suppress(EndedError):
            await order_cancel(self._database, batch["job_id"], self._clock.now(), lambda _: None)

    async def _give_up(self, batch: Record) -> None:
        await self._fail(batch, "batch_expired", "no worker could be asked before the completion window expired")

    async def _fail(self, batch: Record, code: str, message: str, param: str | None = None) -> None:
        await self._fail_all(batch, [{"code": code, "message": message, "param": param, "line": None}])

    async def _fail_all(self, batch: Record, faults: Sequence[dict[str, Any]]) -> None:
        # Its job was begun where whoever wrote its lines was killed.
        await self._end_job(batch)
        await self._database.write(lambda tx: fail_batch(tx, batch["id"], faults, self._clock.now()))

    async def _begin(self, batch: Record) -> None:
        """Look through a batch and make its job; nothing where no worker is there yet."""
        file = await file_of(self._database.read, batch["input_file"])
        if file is None:
            await self._fail(batch, "invalid_input_file", "the input file is gone: send it again", "input_file_id")
            return
        inspector = await self._inspected(batch, file["id"])
        if inspector.faults:
            await self._fail_all(batch, inspector.faults)
            return
        try:
            if not await self._desk.models():
                return
            job_model = ANY_MODEL if inspector.model is None else await self._desk.choose_model(inspector.model)
        except NoWorkerError:
            return
        except DistllmError as error:
            await self._fail(batch, "model_not_found", str(error), "model")
            return
        await self._make_job(batch, file["id"], inspector, job_model)

    async def _inspected(self, batch: Record, file_id: int) -> Inspector:
        """What there is to say of the lines of a batch; it is found out once, however long the fleet is away."""
        if batch["id"] not in self._inspections:
            inspector = Inspector(batch["endpoint"])
            async for lines in lines_of(chunks_of(self._database.read, file_id)):
                # Beside the event loop: a file may be long.
                await asyncio.to_thread(inspector.look, lines)
            inspector.end()
            self._inspections[batch["id"]] = inspector
        return self._inspections[batch["id"]]

    async def _make_job(self, batch: Record, file_id: int, inspector: Inspector, job_model: str) -> None:
        batch_id, clock = batch["id"], self._clock
        model, count = inspector.model, inspector.count
        job_id = await self._database.write(lambda tx: accept_batch(tx, batch_id, model, job_model, count, clock.now()))
        if job_id is None:
            return
        digests, maker = await self._desk.weights(), Maker(batch["endpoint"])
        async for lines in lines_of(chunks_of(self._database.read, file_id)):
            for first in range(0, len(lines), CHUNK_REQUESTS):
                made = await asyncio.to_thread(maker.make, lines[first : first + CHUNK_REQUESTS])
                if not await self._database.write(
                    lambda tx, made=made: add_lines(tx, batch_id, made, digests, clock.now())  # type: ignore[misc]  # a lambda's default
                ):
                    return
        await self._database.write(lambda tx: begin_batch(tx, batch_id, job_id, clock.now()))


async def _safely(work: Awaitable[bool | None]) -> bool:
    """Whether work was done well: what goes wrong is logged, and must not have all batches wait for a restart."""
    try:
        return await work is not False
    except Exception as error:
        logger.error("batches wait: %s: %s", type(error).__name__, error)
        logger.debug("", exc_info=error)
        return False
