"""Writing a file of OpenAI's API, so that nobody finds it before it is whole."""

from dataclasses import dataclass, field
from functools import partial

from distllm.store.database import Database
from distllm.store.files import CHUNK_BYTES, NewFile, add_chunk, begin_file

KEPT_SECONDS = 30 * 86_400.0
"""How long a file is kept of which nothing is said."""


@dataclass(slots=True)
class FileWriter:
    """Writes a file, a chunk at a time; `size` is what has come of it."""

    database: Database
    file_id: int
    size: int = 0
    _ordinal: int = 0
    _waiting: bytearray = field(default_factory=bytearray)

    @classmethod
    async def begin(cls, database: Database, new: NewFile) -> "FileWriter":
        """Make a file."""
        return cls(database, await database.write(lambda tx: begin_file(tx, new)))

    async def write(self, data: bytes) -> None:
        """Add to it."""
        self._waiting += data
        self.size += len(data)
        while len(self._waiting) >= CHUNK_BYTES:
            await self._put(bytes(self._waiting[:CHUNK_BYTES]))
            del self._waiting[:CHUNK_BYTES]

    async def flush(self) -> None:
        """Write what is left."""
        if self._waiting:
            await self._put(bytes(self._waiting))
            self._waiting.clear()

    async def _put(self, data: bytes) -> None:
        await self.database.write(partial(add_chunk, file_id=self.file_id, ordinal=self._ordinal, data=data))
        self._ordinal += 1
