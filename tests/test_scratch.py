"""What a killed process leaves in the folder for temporary files goes when the next one starts, and nothing else."""

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from distllm.scratch import scratch_folder

BATCH = """
import asyncio
from distllm import Config, LoadBalancer

async def main():
    config = Config.of({"workers": [{"id": "a", "type": "ollama", "host": "127.0.0.1", "port": 9}]}, "here", {})
    async with LoadBalancer(config):
        print("open", flush=True)
        await asyncio.to_thread(input)

asyncio.run(main())
"""


async def started(folder: Path) -> Process:
    """A program that has opened a LoadBalancer without a database."""
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONWARNINGS": "error"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BATCH, stdin=PIPE, stdout=PIPE, cwd=folder.parent, env=environment
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"open\n"
    return process


async def test_a_batch_that_was_killed_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    killed, living = await asyncio.gather(started(folder), started(folder))
    killed.kill()
    await killed.communicate()
    assert len(list(folder.iterdir())) == 2
    last = await started(folder)
    assert len(list(folder.iterdir())) == 2
    for process in (living, last):
        await process.communicate(b"\n")
        assert process.returncode == 0
    assert list(folder.iterdir()) == []


def test_what_is_not_known_to_be_abandoned_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "distllm-of-a-person").mkdir()
    (tmp_path / "distllm-just-made").mkdir()
    (tmp_path / "distllm-just-made" / "held").touch()
    (tmp_path / "distllm-file").write_text("1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "held").write_text("1")
    (tmp_path / "distllm-link").symlink_to(tmp_path / "elsewhere")
    before = set(tmp_path.iterdir())
    abandoned = tmp_path / "distllm-abandoned"
    abandoned.mkdir()
    (abandoned / "held").write_text("1")
    with scratch_folder() as mine, scratch_folder() as other:
        assert set(tmp_path.iterdir()) == before | {mine, other}
    assert set(tmp_path.iterdir()) == before
    assert (tmp_path / "elsewhere" / "held").exists()
