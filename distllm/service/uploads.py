"""Files that a request brings: kept for as long as they are read, and then gone."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import TypeAdapter, ValidationError

from distllm.documents.kinds import LARGEST, kind_of
from distllm.scratch import scratch_folder
from distllm.service.models import MOST_DOCUMENTS, Label
from distllm.service.problems import RefusedError

LARGEST_REQUEST = 4 * 2**20
"""Of what is asked, beside the files."""

LARGEST_UPLOAD = 2**30
"""Of all files of a request."""

SILENCE_SECONDS = 60.0
"""How long a client may send nothing."""

T = TypeVar("T")

_LABEL = TypeAdapter[str](Label)


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that was sent: where it lies, what people call it, its length and the hash of its bytes."""

    path: Path
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Form:
    """What a form brought."""

    fields: dict[str, bytes]
    files: list[Sent]


@asynccontextmanager
async def received(request: web.Request, *fields: str) -> AsyncIterator[Form]:
    """The parts of a form: those called one of `fields`, and each `files`. They are gone at the end.

    A file lies in a folder of its own, under a name of ours: what it is called is a label and no path. Raises
    RefusedError for parts that are not known, and for more than is taken.
    """
    if request.content_type != "multipart/form-data":
        raise RefusedError(415, "the body must be a form, with Content-Type: multipart/form-data")
    with scratch_folder() as folder:
        found, files = dict[str, bytes](), list[Sent]()
        room = LARGEST_UPLOAD
        with readable():
            reader = await request.multipart()
            while (part := await soon(reader.next())) is not None:
                if isinstance(part, MultipartReader):
                    raise RefusedError(422, "a part of the form is a form itself: send files side by side")
                refuse_encoded(part)
                if part.name in fields:
                    found[part.name] = await _whole(part)
                elif part.name == "files" and part.filename == "" and await _is_empty(part):
                    # So a browser says that no file was chosen.
                    continue
                elif part.name == "files":
                    if len(files) == MOST_DOCUMENTS:
                        raise RefusedError(413, f"more than {MOST_DOCUMENTS:,} files: send less at a time")
                    files.append(await _kept(part, folder / f"{len(files)}", room))
                    room -= files[-1].size
                else:
                    taken = ", ".join(f"`{name}`" for name in fields)
                    raise RefusedError(422, f"the form has a part {part.name!r}: send {taken} and `files`")
        yield Form(found, files)


@contextmanager
def readable() -> Iterator[None]:
    """Raises RefusedError for a form that cannot be read within, or whose client falls silent."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(400, f"the form cannot be read: {error}") from None
    except HttpProcessingError:
        raise RefusedError(400, "the form cannot be read: a part has a header that HTTP does not allow") from None
    except TimeoutError:
        raise RefusedError(408, f"nothing came for {SILENCE_SECONDS:.0f} s: send it again") from None


def refuse_encoded(part: BodyPartReader) -> None:
    """Raises RefusedError for a part whose bytes are not those that are meant."""
    encoding = part.headers.get("Content-Transfer-Encoding", "binary").lower()
    if encoding not in ("7bit", "8bit", "binary") or "Content-Encoding" in part.headers:
        raise RefusedError(415, "a part of the form is encoded: send its bytes as they are")


async def _is_empty(part: BodyPartReader) -> bool:
    return not await soon(part.read_chunk(2**16))


async def _whole(part: BodyPartReader) -> bytes:
    data = b""
    while chunk := await soon(part.read_chunk(2**16)):
        data += chunk
        if len(data) > LARGEST_REQUEST:
            raise RefusedError(413, f"`{part.name}` is longer than {LARGEST_REQUEST // 2**20} MiB: send texts as files")
    return data


async def _kept(part: BodyPartReader, folder: Path, room: int) -> Sent:
    name = _name(part.filename)
    kind = kind_of(PurePosixPath(name))
    # Its suffix tells how it is read; nothing else of its name touches the disk.
    path = folder / f"document{PurePosixPath(name).suffix.lower() if kind else ''}"
    folder.mkdir()
    digest, size = hashlib.sha256(), 0
    largest = LARGEST[kind] if kind else max(LARGEST.values())
    with path.open("xb") as file:
        while chunk := await soon(part.read_chunk(2**18)):
            size += len(chunk)
            if size > largest:
                raise RefusedError(413, f"{name} is longer than {largest // 1_000_000} MB: split it")
            if size > room:
                raise RefusedError(413, f"the files are longer than {LARGEST_UPLOAD // 2**20} MiB: send less at a time")
            digest.update(chunk)
            file.write(chunk)
    return Sent(path, name, size, digest.hexdigest())


def _name(given: str | None) -> str:
    try:
        return _LABEL.validate_python(given)
    except ValidationError:
        raise RefusedError(422, "a file has no name that can be shown: give each a filename of its own") from None


async def soon(coming: Awaitable[T]) -> T:
    """What comes next of a form. Raises TimeoutError if nothing does for SILENCE_SECONDS."""
    async with asyncio.timeout(SILENCE_SECONDS):
        return await coming
