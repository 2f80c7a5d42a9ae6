"""What the tests of this room share."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader


@pytest.fixture
async def reader() -> AsyncIterator[DocumentReader]:
    """A reader with one child."""
    async with DocumentReader(children=1) as opened:
        yield opened


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """A function that saves bytes under a name and gives the path."""

    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write
