"""One operation of the API: its route, and what its document says of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from distllm.domain.errors import NoJobError
from distllm.presets.schema import first_fault
from distllm.service.desk import DESK, Desk
from distllm.service.models import LARGEST_NUMBER
from distllm.service.problems import RefusedError
from distllm.store.reads import Record

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation. `path` is below the room's; `takes` are bodies by their media type, `gives` the answer's model.

    `headers` are those that it looks at, as parameters of the document have them; `statuses` are the problems that
    it may answer with, beside those that all may.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    gives: type[BaseModel] | None = None
    status: int = 200
    also: Sequence[int] = ()
    query: type[BaseModel] | None = None
    takes: dict[str, type[BaseModel]] = field(default_factory=dict)
    must_take: bool = True
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: Sequence[int] = ()


def desk_of(request: web.Request) -> Desk:
    """What handlers work with."""
    return request.app[DESK]


def job_of(request: web.Request) -> int:
    """The job that a path names. Raises RefusedError for what is no number of one."""
    given = request.match_info["job"]
    job_id = int(given) if given.isdecimal() and given.isascii() and len(given) < 20 else 0
    if not 1 <= job_id <= LARGEST_NUMBER:
        raise RefusedError(404, "there is no such job: a job is named by its number")
    return job_id


def has_left(request: web.Request) -> bool:
    """Whether whoever asked is gone: nobody says so to a handler that waits for something else."""
    return request.transport is None or request.transport.is_closing()


async def known_job_of(request: web.Request) -> Record:
    """The job that a path names, as `Reader.job` has it. Raises RefusedError, or NoJobError where there is none."""
    job_id = job_of(request)
    job = await desk_of(request).database.read.job(job_id)
    if job is None:
        raise NoJobError(job_id)
    return job


def query_of(request: web.Request, model: type[M]) -> M:
    """The query of a request. Raises RefusedError for what does not fit."""
    twice = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if twice:
        raise RefusedError(422, f"{twice[0]}: is given twice; give it once")
    return _fitting(model, lambda: model.model_validate_strings(dict(request.query)))


async def body_of(request: web.Request, model: type[M]) -> M:
    """The JSON body of a request; an empty one is `{}`. Raises RefusedError for what does not fit."""
    data = await request.read()
    if data and request.content_type != "application/json":
        raise RefusedError(415, "the body must be JSON, with Content-Type: application/json")
    return parsed(data or b"{}", model)


def parsed(data: bytes, model: type[M]) -> M:
    """A model from JSON. Raises RefusedError for what does not fit."""
    try:
        from_json(data)
    except ValueError as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from None
    return _fitting(model, lambda: model.model_validate_json(data))


def _fitting(model: type[M], make: Callable[[], M]) -> M:
    try:
        return make()
    except ValidationError as error:
        raise RefusedError(422, first_fault(error, [model])) from None


def told(model: type[BaseModel], facts: dict[str, Any], status: int = 200, **headers: str) -> web.Response:
    """An answer, which is what its model says."""
    text = model.model_validate(facts).model_dump_json()
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)
