"""A shelf is read a few files at a time, however long it is."""

import asyncio
from pathlib import Path

from distllm.documents import find_files
from distllm.domain.clock import Clock
from distllm.intake import HANDS, Request, build, create, plan
from distllm.presets import preset_of_prompts
from distllm.store.database import open_database

FILES = 60


async def no_weights() -> frozenset[str]:
    return frozenset()


async def no_window(model: str) -> None:
    return None


async def test_few_files_are_on_their_way_and_none_is_forgotten(tmp_path: Path) -> None:
    for number in range(FILES):
        (tmp_path / f"{number}.txt").write_text(f"Paper {number} says little.", encoding="utf-8")
    request = Request(find_files([tmp_path]), preset_of_prompts(["What?"]), "m")
    seen: list[tuple[int, int]] = []

    def on_step(done: int, total: int, what: str) -> None:
        assert what == "files read"
        seen.append((done, len(asyncio.all_tasks())))
        assert total == FILES

    async with open_database(tmp_path / "d.db") as database:
        dry = await plan(database, request, on_step, Clock(), no_weights, no_window, [])
        created = await create(database, request, Clock())
        await build(database, created.job_id, on_step, Clock(), no_weights, no_window)
        files = await database.read.documents(created.job_id, None)
        job = await database.read.job(created.job_id)
    assert dry.files == FILES
    assert [each["document"] for each in files] == [f"{number}.txt" for number in range(FILES)]
    assert job is not None
    assert (job["pending"], job["unreadable"]) == (FILES, 0)
    assert [done for done, _ in seen].count(FILES) == 2
    # Those of the test and of the reader's children are few too.
    assert max(tasks for _, tasks in seen) < 2 * HANDS < FILES
