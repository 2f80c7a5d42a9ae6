"""Switches that the driver turns while a victim runs: a few numbers in a file that both map into memory."""

import mmap
import struct
from pathlib import Path

_LAYOUT = struct.Struct("dd")


class Switches:
    """`clock` is added to the time of day, in seconds; while `full` is not 0, the database may not grow."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)

    @property
    def clock(self) -> float:
        """Seconds by which the clock is wrong."""
        return float(_LAYOUT.unpack_from(self._memory)[0])

    @property
    def full(self) -> bool:
        """Whether there is no room for another page."""
        return bool(_LAYOUT.unpack_from(self._memory)[1])

    def turn(self, *, clock: float | None = None, full: bool | None = None) -> None:
        """Set what is given."""
        new = self.clock if clock is None else clock, float(self.full if full is None else full)
        _LAYOUT.pack_into(self._memory, 0, *new)

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()
