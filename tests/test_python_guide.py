"""What docs/python.md shows is run, and what it says of names is so."""

import asyncio
import inspect
import json
import re
import sys
from asyncio.subprocess import PIPE
from dataclasses import fields
from pathlib import Path

from distllm import BatchProgress, BatchResult, LoadBalancer
from tests.api.conftest import rows
from tests.fakes.server import FakeServer

TEXT = Path(__file__).parent.parent.joinpath("docs/python.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


async def test_the_program_does_what_it_says(tmp_path: Path) -> None:
    async with FakeServer() as server:
        worker = {"id": "studio", "type": "openai", "host": server.host, "port": server.port}
        tmp_path.joinpath("workers.json").write_text(json.dumps({"workers": [worker]}), encoding="utf-8")
        outs = []
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", BLOCKS["python"], cwd=tmp_path, stdout=PIPE
            )
            async with asyncio.timeout(60):
                out, _ = await process.communicate()
            assert process.returncode == 0
            outs.append(out.decode().splitlines())
        assert len(server.requests) == 3
    assert outs[0][0] == "0 of 3 prompts"
    assert outs[0][-4:] == ["3 of 3 prompts"] + [
        f"Name a river of {country}. Answer to: Name a river of {country}." for country in ("France", "Ghana", "Peru")
    ]
    assert outs[1] == outs[0][-4:]
    samples = rows(tmp_path / "answers.db", BLOCKS["sql"])
    assert sum(succeeded for _, _, _, succeeded, _, _ in samples) == 3


def test_it_names_every_part_of_a_result_and_of_progress_and_every_parameter() -> None:
    named = set(re.findall(r"`(\w+)`", TEXT))
    assert {field.name for field in fields(BatchResult)} <= named
    assert {field.name for field in fields(BatchProgress)} <= named
    parameters = inspect.signature(LoadBalancer.process_batch).parameters
    assert set(parameters) - {"self", "prompts"} <= named
    assert list(parameters) == list(inspect.signature(LoadBalancer.stream).parameters)
