"""Files of programs that speak OpenAI's API: in chunks, so that a long one never lies in memory."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, delete, exists, or_, select, update

from distllm.domain.errors import DistllmError
from distllm.store.reads import Reader, Record
from distllm.store.sql import insert_row
from distllm.store.tables import batches, file_chunks, files
from distllm.store.tx import Tx

CHUNK_BYTES = 2**20


class NeededError(DistllmError):
    """A file cannot go yet."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose content is still to come. Times are seconds since 1970."""

    filename: str
    purpose: str
    created_at: float


_NEW = insert_row(files, "key", "filename", "purpose", "created_at").returning(files.c.id)
_CHUNK = insert_row(file_chunks, "file_id", "ordinal", "data")
# Nobody finds it before all of it is there.
_WHOLE = (
    update(files)
    .where(files.c.id == bindparam("file"))
    .values(bytes=bindparam("size"), expires_at=bindparam("until"))
    .returning(files.c.key)
)


def begin_file(tx: Tx, new: NewFile) -> int:
    """Make a file that nobody finds before `end_file`; its number."""
    row = {
        "key": f"file-{uuid.uuid4().hex}",
        "filename": new.filename,
        "purpose": new.purpose,
        "created_at": new.created_at,
    }
    return int(tx.value(_NEW, row))


def add_chunk(tx: Tx, file_id: int, ordinal: int, data: bytes) -> None:
    """Write the next part of a file."""
    tx.run(_CHUNK, {"file_id": file_id, "ordinal": ordinal, "data": data})


def end_file(tx: Tx, file_id: int, size: int, expires_at: float) -> str:
    """A file is whole, of `size` bytes, and goes at a time; its key."""
    return str(tx.value(_WHOLE, {"file": file_id, "size": size, "until": expires_at}))


# What a batch is still to be made of is kept.
_NEEDED = exists().where(
    batches.c.input_file == files.c.key, batches.c.in_progress_at.is_(None), batches.c.ended_at.is_(None)
)
_FOUND = select(files.c.id, _NEEDED).where(files.c.key == bindparam("key"), files.c.bytes.is_not(None))
_CHUNKS = delete(file_chunks).where(file_chunks.c.file_id == bindparam("file"))
_FILE = delete(files).where(files.c.id == bindparam("file"))


def delete_file(tx: Tx, key: str) -> bool:
    """Remove a file; false if there is none. Raises NeededError while a batch is made of it."""
    for file_id, needed in tx.rows(_FOUND, {"key": key}):
        if needed:
            raise NeededError(f"a batch is being made of {key}: cancel that first, or wait until it is in progress")
        drop_file(tx, file_id)
        return True
    return False


# What was begun before a time by a process that is gone, and what has had its time.
_GONE = (
    select(files.c.id)
    .where(
        or_(
            and_(files.c.bytes.is_(None), files.c.created_at < bindparam("begun_before")),
            and_(files.c.expires_at < bindparam("now"), ~_NEEDED),
        )
    )
    .limit(1)
)


def remove_gone(tx: Tx, begun_before: float, now: float) -> bool:
    """Remove one file that expired, or that was begun before a time and never ended; false if there is none."""
    file_id = tx.value(_GONE, {"begun_before": begun_before, "now": now})
    if file_id is None:
        return False
    drop_file(tx, file_id)
    return True


def drop_file(tx: Tx, file_id: int) -> None:
    """Remove a file, whole or not."""
    tx.run(_CHUNKS, {"file": file_id})
    tx.run(_FILE, {"file": file_id})


_HALF = select(files.c.id).where(
    files.c.filename == bindparam("name"), files.c.purpose == bindparam("why"), files.c.bytes.is_(None)
)


def drop_half_written(tx: Tx, filename: str, purpose: str) -> None:
    """Remove the files of a name and purpose that were begun and never ended."""
    for (file_id,) in tx.rows(_HALF, {"name": filename, "why": purpose}):
        drop_file(tx, file_id)


_COLUMNS = "id, key, filename, purpose, bytes, created_at, expires_at"


async def file_of(reader: Reader, key: str) -> Record | None:
    """A file that is whole: id, key, filename, purpose, bytes, created_at, expires_at."""
    return await reader.row(f"SELECT {_COLUMNS} FROM files WHERE key = :key AND bytes IS NOT NULL", key=key)


async def file_page(
    reader: Reader, after: str | None, limit: int, purpose: str | None, *, newest_first: bool
) -> list[Record]:
    """The files that follow the one with the key `after`, of all purposes or of one, as `file_of` gives them."""
    values = {"after": after, "limit": limit, "purpose": purpose}
    return await reader.rows(_NEWEST if newest_first else _OLDEST, **values)


_PAGE = f"""
SELECT {_COLUMNS} FROM files
 WHERE bytes IS NOT NULL AND (purpose = :purpose OR :purpose IS NULL)
   AND (id %s (SELECT id FROM files WHERE key = :after) OR :after IS NULL) ORDER BY id %s LIMIT :limit
"""
_NEWEST, _OLDEST = _PAGE % ("<", "DESC"), _PAGE % (">", "ASC")


async def chunks_of(reader: Reader, file_id: int) -> AsyncIterator[bytes]:
    """The content of a file, a chunk at a time."""
    ordinal = 0
    while row := await reader.row(_DATA, file=file_id, ordinal=ordinal):
        yield row["data"]
        ordinal += 1


_DATA = "SELECT data FROM file_chunks WHERE file_id = :file AND ordinal = :ordinal"
