"""`/v1/batches`: made, looked at and cancelled; what is done for them meanwhile, the clerk does."""

import json
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from distllm.service.endpoint import body_of, desk_of
from distllm.service.openai.faults import FaultError
from distllm.service.openai.forms import seconds_of
from distllm.service.openai.pages import page_of, shown
from distllm.service.openai.wishes import ENDPOINTS
from distllm.store.batches import Wanted, batch_of, batch_page, cancel_batch, create_batch
from distllm.store.files import file_of
from distllm.store.reads import Record

WINDOW_SECONDS = 86_400.0


class ExpiresAfter(BaseModel):
    """How long results are kept."""

    anchor: str
    seconds: int


class NewBatch(BaseModel):
    """What a batch is made of."""

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None
    output_expires_after: ExpiresAfter | None = None


async def make_batch(request: web.Request) -> web.Response:
    """Make a batch of a file. Its lines are looked at later, so that the answer comes at once."""
    desk = desk_of(request)
    if desk.leaving():
        raise FaultError(503, "the service is stopping: make the batch again in a while")
    given = await body_of(request, NewBatch)
    if given.endpoint not in ENDPOINTS:
        raise FaultError(400, f"endpoint: must be one of {', '.join(ENDPOINTS)}", param="endpoint")
    kept = given.output_expires_after
    seconds = None if kept is None else seconds_of(kept.seconds, kept.anchor, "output_expires_after")
    file = await file_of(desk.database.read, given.input_file_id)
    if file is None or file["purpose"] != "batch":
        raise FaultError(
            400,
            f"input_file_id: there is no file {given.input_file_id[:100]} for batches; send it to /v1/files first",
            param="input_file_id",
        )
    now = desk.clock.now()
    wanted = Wanted(
        endpoint=given.endpoint,
        input_file=given.input_file_id,
        metadata=None if given.metadata is None else json.dumps(given.metadata),
        output_seconds=seconds,
        created_at=now,
        expires_at=now + WINDOW_SECONDS,
    )
    key = await desk.database.write(lambda tx: create_batch(tx, wanted))
    return web.json_response(batch_facts(await _found(request, key)))


async def list_batches(request: web.Request) -> web.Response:
    """Batches, newest first."""
    page = page_of(request, largest=100, default=20)
    rows = await batch_page(desk_of(request).database.read, page.after, page.limit + 1)
    return shown([batch_facts(row) for row in rows], page.limit)


async def show_batch(request: web.Request) -> web.Response:
    """Where a batch stands."""
    return web.json_response(batch_facts(await _found(request, request.match_info["batch"])))


async def stop_batch(request: web.Request) -> web.Response:
    """Let a batch end with what is answered."""
    desk, key = desk_of(request), request.match_info["batch"]
    await _found(request, key)
    changed = await desk.database.write(lambda tx: cancel_batch(tx, key, desk.clock.now()))
    row = await _found(request, key)
    if not changed and row["status"] != "cancelled":
        raise FaultError(409, f"the batch has ended: it is {row['status']}", code="batch_ended")
    return web.json_response(batch_facts(row))


def state_of(row: Record) -> str:
    """What a batch is doing, or how it ended."""
    if row["status"] is not None:
        return str(row["status"])
    for name, state in (
        ("cancelling_at", "cancelling"),
        ("finalizing_at", "finalizing"),
        ("in_progress_at", "in_progress"),
    ):
        if row[name] is not None:
            return state
    return "validating"


def batch_facts(row: Record) -> dict[str, Any]:
    """A batch as OpenAI tells it."""
    state, errors = state_of(row), row["errors"]
    ends = ("completed", "failed", "expired", "cancelled")
    times = ("created_at", "expires_at", "in_progress_at", "finalizing_at", "cancelling_at")
    return {
        "id": row["key"],
        "object": "batch",
        "endpoint": row["endpoint"],
        "model": row["model"],
        "errors": None if errors is None else {"object": "list", "data": json.loads(errors)},
        "input_file_id": row["input_file"],
        "completion_window": "24h",
        "status": state,
        "output_file_id": row["output_file"],
        "error_file_id": row["error_file"],
        **{name: None if row[name] is None else int(row[name]) for name in times},
        **{f"{end}_at": int(row["ended_at"]) if end == state else None for end in ends},
        "request_counts": {"total": row["total"], "completed": row["completed"], "failed": row["failed"]},
        "usage": None if row["usage"] is None else json.loads(row["usage"]),
        "metadata": None if row["metadata"] is None else json.loads(row["metadata"]),
    }


async def _found(request: web.Request, key: str) -> Record:
    row = await batch_of(desk_of(request).database.read, key)
    if row is None:
        raise FaultError(404, f"there is no batch {key[:100]}: GET /v1/batches lists those there are", param="id")
    return row
