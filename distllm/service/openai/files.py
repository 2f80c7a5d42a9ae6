"""`/v1/files`: what batches are made of, and their results."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiohttp import BodyPartReader, web

from distllm.service.endpoint import desk_of
from distllm.service.openai.faults import FaultError
from distllm.service.openai.pages import page_of, shown
from distllm.store.database import Database
from distllm.store.files import (
    CHUNK_BYTES,
    NeededError,
    NewFile,
    add_chunk,
    begin_file,
    chunks_of,
    delete_file,
    end_file,
    file_of,
    file_page,
)
from distllm.store.reads import Record

LARGEST_FILE = 200 * 10**6
LARGEST_FIELD = 2**12
KEPT_SECONDS = 30 * 86_400.0
SHORTEST_KEPT, LONGEST_KEPT = 3_600, 2_592_000
MOST_FILES = 10_000
SILENCE_SECONDS = 60.0
"""How long a client may send nothing."""


T = TypeVar("T")


@dataclass
class FileWriter:
    """Writes a file, a chunk at a time; nobody finds it before it is whole, which the writer of `size` says."""

    database: Database
    file_id: int
    size: int = 0
    _ordinal: int = 0
    _waiting: bytearray | None = None

    @classmethod
    async def begin(cls, database: Database, new: NewFile) -> "FileWriter":
        """Make a file."""
        return cls(database, await database.write(lambda tx: begin_file(tx, new)))

    async def write(self, data: bytes) -> None:
        """Add to it."""
        waiting = self._waiting = bytearray() if self._waiting is None else self._waiting
        waiting += data
        self.size += len(data)
        while len(waiting) >= CHUNK_BYTES:
            await self._put(bytes(waiting[:CHUNK_BYTES]))
            del waiting[:CHUNK_BYTES]

    async def flush(self) -> None:
        """Write what is left."""
        if self._waiting:
            await self._put(bytes(self._waiting))
            self._waiting = None

    async def _put(self, data: bytes) -> None:
        await self.database.write(partial(add_chunk, file_id=self.file_id, ordinal=self._ordinal, data=data))
        self._ordinal += 1


async def create_file(request: web.Request) -> web.Response:
    """Take a file in; its lines are looked at when a batch is made of it."""
    if request.content_type != "multipart/form-data":
        raise FaultError(400, "send the file in a form: multipart/form-data with `purpose` and `file`")
    desk = desk_of(request)
    now = desk.clock.now()
    given: dict[str, str] = {}
    writer, name = None, ""
    try:
        reader = await request.multipart()
        while (part := await _soon(reader.next())) is not None:
            if not isinstance(part, BodyPartReader):
                raise FaultError(400, "a part of the form is a form itself: send `purpose` and `file`")
            if part.name != "file":
                given[part.name or ""] = (await _field(part)).decode("utf-8", "replace")
                continue
            name = _name(part.filename)
            if writer is not None:
                raise FaultError(400, "the form has two files: send each by itself", param="file")
            writer = await FileWriter.begin(desk.database, NewFile(name, "batch", now))
            async for data in _content(part):
                await writer.write(data)
    except ValueError as error:
        raise FaultError(400, f"the form cannot be read: {error}") from None
    except TimeoutError:
        raise FaultError(408, f"nothing came for {SILENCE_SECONDS:.0f} s: send it again") from None
    if given.get("purpose") != "batch":
        raise FaultError(400, "purpose: must be 'batch', which is all that files are for here", param="purpose")
    if writer is None:
        raise FaultError(400, "the form has no part `file`", param="file")
    await writer.flush()
    expires = now + _seconds(given, KEPT_SECONDS)
    size, file_id = writer.size, writer.file_id
    key = await desk.database.write(lambda tx: end_file(tx, file_id, size, expires))
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
    async for data in chunks_of(desk_of(request).database.read, file["id"]):
        await response.write(data)
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


def seconds_of(given: object, anchor: object, param: str) -> float:
    """How long something is kept. Raises FaultError for what is no such time."""
    number = int(str(given)) if str(given).isdecimal() and len(str(given)) < 10 else 0
    if anchor != "created_at" or not SHORTEST_KEPT <= number <= LONGEST_KEPT:
        raise FaultError(
            400,
            f"{param}: give anchor created_at, and seconds from {SHORTEST_KEPT:,} to {LONGEST_KEPT:,}",
            param=param,
        )
    return float(number)


def _seconds(given: dict[str, str], default: float) -> float:
    if not any(name.startswith("expires_after") for name in given):
        return default
    return seconds_of(given.get("expires_after[seconds]"), given.get("expires_after[anchor]"), "expires_after")


async def _found(request: web.Request, key: str) -> Record:
    row = await file_of(desk_of(request).database.read, key)
    if row is None:
        raise _missing(key)
    return row


def _missing(key: str) -> FaultError:
    return FaultError(404, f"there is no file {key[:100]}: GET /v1/files lists those there are", param="id")


def _name(given: str | None) -> str:
    name = (given or "").replace("\\", "/").rpartition("/")[2]
    if not name.endswith(".jsonl") or not name.isprintable() or len(name) > 255:
        raise FaultError(400, "file: a batch is made of a file of lines of JSON; name it *.jsonl", param="file")
    return name


async def _field(part: BodyPartReader) -> bytes:
    data = b""
    while chunk := await _soon(part.read_chunk(2**12)):
        data += chunk
        if len(data) > LARGEST_FIELD:
            raise FaultError(400, "a field of the form is too long")
    return data


async def _content(part: BodyPartReader) -> AsyncIterator[bytes]:
    size = 0
    while chunk := await _soon(part.read_chunk(2**18)):
        size += len(chunk)
        if size > LARGEST_FILE:
            raise FaultError(413, f"the file is longer than {LARGEST_FILE // 10**6} MB: split it", param="file")
        yield bytes(chunk)


async def _soon(coming: Awaitable[T]) -> T:
    async with asyncio.timeout(SILENCE_SECONDS):
        return await coming
