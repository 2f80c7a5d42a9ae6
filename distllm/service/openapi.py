"""The document of the API, made of its models and its table of operations."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from distllm.service.endpoint import Endpoint
from distllm.service.models import LARGEST_NUMBER, Problem

_ALWAYS = (401, 403, 500, 503)
_JOB = {
    "name": "job",
    "in": "path",
    "required": True,
    "description": "A job's number.",
    "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER},
}


def openapi(endpoints: Sequence[Endpoint], prefix: str, version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of `endpoints`, whose paths are below `prefix`."""
    wanted: set[tuple[type[BaseModel], JsonSchemaMode]] = {(Problem, "serialization")}
    for each in endpoints:
        wanted |= {(model, "validation") for model in each.takes.values()}
        wanted |= {(each.gives, "serialization")} if each.gives else set()
    ordered = sorted(wanted, key=lambda pair: (pair[0].__name__, pair[1]))
    refs, schemas = models_json_schema(ordered, ref_template="#/components/schemas/{model}")
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(prefix + each.path, {})[each.method.lower()] = _operation(each, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "distllm",
            "version": version,
            "description": "A persistent job queue that has local models read papers, and keeps their answers.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(each: Endpoint, refs: Any) -> dict[str, Any]:
    parameters = [_JOB] if "{job}" in each.path else []
    parameters += [] if each.query is None else _parameters(each.query)
    parameters += [
        {"name": name, "in": "header", "schema": {"type": "string"}} | said for name, said in each.headers.items()
    ]
    given: dict[str, Any] = {"description": each.summary}
    if each.gives is not None:
        given["content"] = {"application/json": {"schema": refs[each.gives, "serialization"]}}
    elif each.name == "streamEvents":
        given["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    responses = {str(status): given for status in (each.status, *each.also)}
    for status in sorted({*_ALWAYS, *each.statuses}):
        problem = {"application/problem+json": {"schema": refs[Problem, "serialization"]}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    operation: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if each.takes:
        content = {media: {"schema": refs[model, "validation"]} for media, model in each.takes.items()}
        operation["requestBody"] = {"required": each.must_take, "content": content}
    return operation


def _parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    found = []
    for name, facts in schema["properties"].items():
        # A query has no null: what is not given is left out.
        kinds = [kind for kind in facts.pop("anyOf", []) if kind != {"type": "null"}]
        described = {key: value for key, value in facts.items() if key != "title" and value is not None}
        found.append({"name": name, "in": "query", "schema": described | (kinds[0] if kinds else {})})
    return found
