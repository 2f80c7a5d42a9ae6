"""The document of the API says what the service does: its paths, its models, its errors."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distllm.service.api import ENDPOINTS, PREFIX
from tests.service.conftest import House

_SHAPES = {"$ref", "type", "anyOf", "enum", "const", "allOf"}


def schemas_in(value: Any) -> Iterator[dict[str, Any]]:
    """Everything that is used as a schema."""
    if isinstance(value, dict):
        if isinstance(value.get("schema"), dict):
            yield value["schema"]
        for each in value.values():
            yield from schemas_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from schemas_in(each)


def refs_in(value: Any) -> Iterator[str]:
    """All references."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from refs_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from refs_in(each)


async def test_the_document_lists_each_route_and_refers_to_nothing_that_is_not_there(idle: House) -> None:
    document = (await idle.get("/openapi.json")).body
    assert document["openapi"] == "3.1.0"
    told = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert told == {(each.method, PREFIX + each.path) for each in ENDPOINTS}
    refs = set(refs_in(document))
    assert refs
    assert [ref for ref in refs if ref.rpartition("/")[2] not in document["components"]["schemas"]] == []
    assert [schema for schema in schemas_in(document["paths"]) if not _SHAPES & schema.keys()] == []


async def test_each_operation_is_complete(idle: House) -> None:
    document = (await idle.get("/openapi.json")).body
    names = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            assert operation["summary"]
            inside = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert inside == ({"job"} if "{job}" in path else set())
            assert {"401", "403", "500", "503"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                kinds = set(response.get("content", {}))
                assert kinds == {"application/problem+json"} or status.startswith("2"), (path, status)
    assert len(set(names)) == len(names)
    submit = document["paths"]["/api/v1/jobs"]["post"]
    assert set(submit["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {each["name"] for each in submit["parameters"]} == {"Idempotency-Key"}
    limit = next(each for each in document["paths"]["/api/v1/jobs"]["get"]["parameters"] if each["name"] == "limit")
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}


async def test_the_page_of_the_service_shows_programs_that_run(house: House) -> None:
    page = (Path(__file__).parents[2] / "docs/service.md").read_text(encoding="utf-8")
    of_ours, of_openai = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert await printed(of_ours, house) == "bees.txt what_do_bees_not_see Answer to: What do bees not see?\n"
    *answers, streamed = (await printed(of_openai, house)).splitlines()
    assert sorted(answers) == [f"{animal} Answer to: What do {animal} see?" for animal in ("bats", "bees", "moles")]
    assert streamed == "Answer to: What do owls see?"


async def printed(program: str, house: House) -> str:
    """What a program prints that speaks to a service."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={"DISTLLM_URL": house.service.url}, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


def test_the_page_of_the_service_names_every_path() -> None:
    page = (Path(__file__).parents[2] / "docs/service.md").read_text(encoding="utf-8")
    for each in ENDPOINTS:
        assert each.path.rpartition("/")[2].replace("{job}", "1") in page
