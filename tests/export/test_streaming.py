"""Twenty thousand answers are written in the memory of a few, and a file is whole or as it was."""

import sqlite3
import stat
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest
from jinja2 import Environment

from distllm.domain.errors import DistllmError, UsageError
from distllm.export.formats import Format, written
from distllm.export.source import open_source
from distllm.export.target import save
from distllm.store import exports, pages
from distllm.store.reads import open_reader

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("form", "wide"), [(Format.JSONL, True), (Format.CSV, True), (Format.MARKDOWN, False)], ids=["jsonl", "csv", "md"]
)
async def test_an_export_takes_no_more_memory_than_a_page(
    twenty_thousand: Path, tmp_path: Path, form: Format, wide: bool
) -> None:
    target = tmp_path / "out"
    async with open_reader(twenty_thousand) as reader:
        source = await open_source(reader, 1, wide)
        tracemalloc.start()
        try:
            await save(written(source, form, wide), target)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert source.states == {"done": 20_000}
    assert target.stat().st_size > 10 * MEGABYTE
    assert peak < 3 * MEGABYTE


async def test_html_is_streamed_too(twenty_thousand: Path) -> None:
    async with open_reader(twenty_thousand) as reader:
        source = await open_source(reader, 1, False)
        sizes = [len(piece) async for piece in written(source, Format.HTML, False)]
    assert sum(sizes) > 10 * MEGABYTE
    assert max(sizes) < 0.2 * MEGABYTE


async def test_the_template_of_html_is_compiled_once(twenty_thousand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_reader(twenty_thousand) as reader:
        source = await open_source(reader, 1, False)
        first = await anext(written(source, Format.HTML, False))
        monkeypatch.delattr(Environment, "compile")
        assert await anext(written(source, Format.HTML, False)) == first


async def test_a_page_is_whole_before_the_next_so_that_the_log_can_be_checkpointed(twenty_thousand: Path) -> None:
    async with open_reader(twenty_thousand) as reader:
        source = await open_source(reader, 1, False)
        pieces = written(source, Format.JSONL, False)
        await anext(pieces)
        assert not reader._connection._connection.in_transaction  # type: ignore[union-attr]  # its own connection
        seen = 1
        async for _ in pieces:
            seen += 1
    assert seen == 5_000


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *((exports, name) for name in ("_FILES", "_PROMPTS_OF_FILES", "_LOOSE_PROMPTS", "_UNREADABLE")),
        (pages, "_FAILURES"),
    ],
)
def test_no_page_costs_more_than_its_rows(twenty_thousand: Path, module: ModuleType, name: str) -> None:
    values = {"job": 1, "after": 10, "rows": 5, "limit": 5, "first": 10, "last": 20}
    with closing(sqlite3.connect(twenty_thousand)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {getattr(module, name)}", values)]
    assert plan
    # The questions of one file are sorted, never its job.
    whole = ("SCAN p", "SCAN r", "SCAN f", "SCAN a", "SCAN d", "USE TEMP B-TREE FOR ORDER BY")
    assert not [step for step in plan if step.startswith(whole)], plan


async def _pieces(*given: bytes | Exception) -> AsyncIterator[bytes]:
    for each in given:
        if isinstance(each, Exception):
            raise each
        yield each


async def test_a_file_is_replaced_with_its_rights_and_by_its_name(tmp_path: Path) -> None:
    target = tmp_path / "real" / "a.csv"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o640)
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    await save(_pieces(b"new", b"er"), link)
    assert link.is_symlink()
    assert target.read_bytes() == b"newer"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [each.name for each in target.parent.iterdir()] == ["a.csv"]


async def test_a_file_is_as_it_was_when_its_content_cannot_be_had(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_bytes(b"old")
    with pytest.raises(DistllmError, match="the database"):
        await save(_pieces(b"new", DistllmError("the database broke")), target)
    assert target.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


async def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        await save(_pieces(b"x"), tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        await save(_pieces(b"x"), tmp_path / "none" / "a.csv")
    with pytest.raises(DistllmError, match="could not be written: File name too long; nothing was changed"):
        await save(_pieces(b"x"), tmp_path / ("x" * 300))


async def test_a_device_is_written_and_not_replaced() -> None:
    await save(_pieces(b"x"), Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


async def test_two_at_once_write_the_same_file_and_take_nothing_from_each_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    async def slow() -> AsyncIterator[bytes]:
        yield b"slow" * 10_000
        await save(quick(), target)
        yield b"ly"

    async def quick() -> AsyncIterator[bytes]:
        assert len(list(tmp_path.glob(".distllm-*.part"))) == 2
        yield b"quick"

    await save(slow(), target)
    assert target.read_bytes() == b"slow" * 10_000 + b"ly"
    assert list(tmp_path.iterdir()) == [target]
