"""`/v1/files`: what batches are made of, and their results."""

from typing import Any

from aiohttp import web

from distllm.service.endpoint import desk_of
from distllm.service.openai.faults import FaultError
from distllm.service.openai.forms import Form
from distllm.service.openai.pages import page_of, shown
from distllm.service.uploads import readable
from distllm.store.files import NeededError, chunks_of, delete_file, file_of, file_page
from distllm.store.reads import Record

MOST_FILES = 10_000


async def create_file(request: web.Request) -> web.Response:
    """Take a file in; its lines are looked at when a batch is made of it."""
    if request.content_type != "multipart/form-data":
        raise FaultError(400, "send the file in a form: multipart/form-data with `purpose` and `file`")
    desk = desk_of(request)
    form = Form(desk.database, desk.clock.now())
    try:
        with readable():
            key = await form.take(await request.multipart())
    except BaseException:
        await form.drop()
        raise
    return web.json_response(file_facts(await _found(request, key)))


async def list_files(request: web.Request) -> web.Response:
    """Files, newest first unless they are wanted otherwise."""
    page = page_of(request, largest=MOST_FILES, default=MOST_FILES)
    purpose, order = request.query.get("purpose"), request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise FaultError(400, "order: must be asc or desc", param="order")
    rows = await file_page(
        desk_of(request).database.read, page.after, page.limit + 1, purpose, newest_first=order == "desc"
    )
    return shown([file_facts(row) for row in rows], page.limit)


async def show_file(request: web.Request) -> web.Response:
    """What is known of a file."""
    return web.json_response(file_facts(await _found(request, request.match_info["file"])))


async def show_content(request: web.Request) -> web.StreamResponse:
    """What is in a file."""
    file = await _found(request, request.match_info["file"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = file["bytes"]
    await response.prepare(request)
    left = file["bytes"]
    async for data in chunks_of(desk_of(request).database.read, file["id"]):
        await response.write(data)
        left -= len(data)
    if left:
        # The client waits for what will never come.
        raise ConnectionAbortedError("the file was deleted meanwhile")
    await response.write_eof()
    return response


async def remove_file(request: web.Request) -> web.Response:
    """Remove a file."""
    key = request.match_info["file"]
    try:
        if not await desk_of(request).database.write(lambda tx: delete_file(tx, key)):
            raise _missing(key)
    except NeededError as error:
        raise FaultError(409, str(error)) from None
    return web.json_response({"id": key, "object": "file", "deleted": True})


def file_facts(row: Record) -> dict[str, Any]:
    """A file as OpenAI tells it."""
    return {
        "id": row["key"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": int(row["created_at"]),
        "expires_at": None if row["expires_at"] is None else int(row["expires_at"]),
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
    }


async def _found(request: web.Request, key: str) -> Record:
    row = await file_of(desk_of(request).database.read, key)
    if row is None:
        raise _missing(key)
    return row


def _missing(key: str) -> FaultError:
    return FaultError(404, f"there is no file {key[:100]}: GET /v1/files lists those there are", param="id")
