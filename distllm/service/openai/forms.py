"""The form that brings a file."""

from aiohttp import BodyPartReader, MultipartReader

from distllm.service.openai.faults import FaultError
from distllm.service.openai.writing import KEPT_SECONDS, FileWriter
from distllm.service.uploads import refuse_encoded, soon
from distllm.store.database import Database
from distllm.store.files import NewFile, drop_file, end_file

LARGEST_FILE = 200 * 10**6
LARGEST_FIELD = 2**12
MOST_FIELDS = 16
SHORTEST_KEPT, LONGEST_KEPT = 3_600, 2_592_000


class Form:
    """Reads a form that is sent at a time `now`. Its parts come in any order, so the file is written as it comes."""

    def __init__(self, database: Database, now: float) -> None:
        self._database = database
        self._now = now
        self._fields: dict[str, str] = {}
        self._writer: FileWriter | None = None

    async def take(self, reader: MultipartReader) -> str:
        """Take all of it in; the key of its file.

        Raises RefusedError for what is not taken.
        """
        while (part := await soon(reader.next())) is not None:
            if not isinstance(part, BodyPartReader) or len(self._fields) > MOST_FIELDS:
                raise FaultError(400, "the form has parts that are not known: send `purpose` and `file`")
            refuse_encoded(part)
            if part.name == "file":
                await self._take_file(part)
            else:
                self._fields[part.name or ""] = await _field(part)
        if self._fields.get("purpose") != "batch":
            raise FaultError(400, "purpose: must be 'batch', which is all that files are for here", param="purpose")
        if self._writer is None:
            raise FaultError(400, "the form has no part `file`", param="file")
        writer, expires = self._writer, self._now + self._kept_seconds()
        await writer.flush()
        return await self._database.write(lambda tx: end_file(tx, writer.file_id, writer.size, expires))

    async def drop(self) -> None:
        """Forget what was written."""
        if self._writer is not None:
            file_id = self._writer.file_id
            await self._database.write(lambda tx: drop_file(tx, file_id))

    async def _take_file(self, part: BodyPartReader) -> None:
        if self._writer is not None:
            raise FaultError(400, "the form has two files: send each by itself", param="file")
        new = NewFile(_name(part.filename), "batch", self._now)
        writer = self._writer = await FileWriter.begin(self._database, new)
        while chunk := await soon(part.read_chunk(2**18)):
            if writer.size + len(chunk) > LARGEST_FILE:
                raise FaultError(413, f"the file is longer than {LARGEST_FILE // 10**6} MB: split it", param="file")
            await writer.write(bytes(chunk))

    def _kept_seconds(self) -> float:
        if not any(name.startswith("expires_after") for name in self._fields):
            return KEPT_SECONDS
        seconds, anchor = (self._fields.get(f"expires_after[{name}]") for name in ("seconds", "anchor"))
        return seconds_of(seconds, anchor, "expires_after")


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


def _name(given: str | None) -> str:
    name = (given or "").replace("\\", "/").rpartition("/")[2]
    if not name.endswith(".jsonl") or not name.isprintable() or len(name) > 255:
        raise FaultError(400, "file: a batch is made of a file of lines of JSON; name it *.jsonl", param="file")
    return name


async def _field(part: BodyPartReader) -> str:
    data = b""
    while chunk := await soon(part.read_chunk(LARGEST_FIELD)):
        data += chunk
        if len(data) > LARGEST_FIELD:
            raise FaultError(400, "a field of the form is too long")
    return data.decode("utf-8", "replace")
