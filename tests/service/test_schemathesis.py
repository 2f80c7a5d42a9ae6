"""A program that knows nothing of distllm but the document of its API finds no fault with it."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import House

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
ROOT = Path(__file__).parents[2]
JOBS = 3


async def test_whatever_the_document_allows_is_taken_and_nothing_else(house: House, tmp_path: Path) -> None:
    await judged(house, tmp_path, examples=10)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_it_is_so_for_many_more_requests(house: House, tmp_path: Path) -> None:
    await judged(house, tmp_path, examples=1_000)


async def judged(house: House, folder: Path, examples: int) -> None:
    """Have the API tried with what its document says, and with what it forbids."""
    for number in range(JOBS):
        await house.submit(f"Paper {number}.", priority=number)
    document = narrowed((await house.get("/openapi.json")).body)
    file = folder / "openapi.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(SCHEMATHESIS, "run", file, "--url", house.service.url, "--no-color", "--generation-deterministic"),
        *("--max-examples", str(examples), "--warnings", "off", "--suppress-health-check", "all"),
        # Its answer has no end.
        *("--exclude-operation-id", "streamEvents"),
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.service.whole_numbers", "PYTHONPATH": str(ROOT)},
        stdout=PIPE,
        stderr=STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert (await house.ask("GET", "/health/ready")).status == 200


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what it cannot know: which jobs there are, to begin with, and which presets and models."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "job":
                    parameter["examples"] = {f"{number}": {"value": number} for number in range(1, JOBS + 1)}
    for name in ("TextSubmission", "Submission"):
        document["components"]["schemas"][name]["properties"] |= {
            "preset": {"enum": ["research", "summary", None]},
            "model": {"enum": ["fake-model", None]},
        }
        # Nor can it say that no two may have the same name, as those of the longest list have that is made for a try.
        [questions, _] = document["components"]["schemas"][name]["properties"]["questions"]["anyOf"]
        del questions["maxItems"]
    # Nor that the texts beside files are counted with these.
    del document["components"]["schemas"]["Submission"]["properties"]["texts"]["maxItems"]
    return document
