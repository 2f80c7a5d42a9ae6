"""The list of jobs, and one job with its documents and questions."""

import json
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from distllm.domain.models import StoredRequest
from distllm.insights import facts_in_words, job_now
from distllm.service.desk import Desk
from distllm.service.endpoint import desk_of, job_of, known_job_of, query_of
from distllm.service.models import LARGEST_NUMBER, FailuresQuery, JobsQuery, Query
from distllm.service.page.rendering import page
from distllm.store.looks import cells, files_after, files_before, loose_cells
from distllm.store.pages import failure_page, job_page
from distllm.store.reads import Record

JOBS = 50
FILES = 50
FAILURES = 100

Number = Annotated[int, Field(ge=-1, le=LARGEST_NUMBER)]


class GridQuery(Query):
    """Which documents of a job are shown: those after or before one, with `named` in their names or titles."""

    after: Number = -1
    before: Number | None = None
    named: Annotated[str, Field(max_length=200)] = ""


async def show_jobs(request: web.Request) -> web.Response:
    """Jobs, newest first."""
    desk, query = desk_of(request), query_of(request, JobsQuery)
    jobs = await job_page(desk.database.read, query.before, JOBS, query.state)
    following = jobs[-1]["job_id"] if len(jobs) == JOBS else None
    return page(request, "jobs.html", jobs=jobs, query=query, following=following)


async def show_job(request: web.Request) -> web.Response:
    """Where a job stands, what failed, and its documents by its questions."""
    desk, query, job_id = desk_of(request), query_of(request, GridQuery), job_of(request)
    read = desk.database.read
    now = await job_now(read, job_id, desk.clock.now())
    shown: dict[str, Any] = {"now": now, "job": now.job, "facts": facts_in_words(now), "query": query}
    if now.job["files"]:
        return page(request, "job.html", **shown, **await _grid(desk, job_id, query))
    return page(request, "batch.html", **shown, **await _prompts(desk, job_id, max(0, query.after)))


async def show_failures(request: web.Request) -> web.Response:
    """The prompts that failed, and why."""
    query, job = query_of(request, FailuresQuery), await known_job_of(request)
    failures = await failure_page(desk_of(request).database.read, job["job_id"], query.cursor, FAILURES)
    following = failures[-1]["prompt_id"] if len(failures) == FAILURES else None
    return page(request, "failures.html", job=job, failures=failures, following=following)


async def _grid(desk: Desk, job_id: int, query: GridQuery) -> Record:
    read = desk.database.read
    # One more than is shown tells whether there are more.
    if query.before is None:
        files = await files_after(read, job_id, query.after, FILES + 1, query.named)
        more, files = len(files) > FILES, files[:FILES]
        back = query.after >= 0
    else:
        files = await files_before(read, job_id, query.before, FILES + 1, query.named)
        back, files = len(files) > FILES, files[-FILES:]
        more = True
    asked = await cells(read, job_id, [file["document_id"] for file in files if file["document_id"] is not None])
    return {
        "files": files,
        "questions": await read.templates(job_id),
        "cells": {(cell["document_id"], cell["template_id"]): cell for cell in asked},
        "previous": files[0]["ordinal"] if files and back else None,
        "following": files[-1]["ordinal"] if files and more else None,
    }


async def _prompts(desk: Desk, job_id: int, after: int) -> Record:
    prompts = await loose_cells(desk.database.read, job_id, after, FILES)
    for prompt in prompts:
        prompt["question"] = question_of(prompt["body"])
    return {"prompts": prompts, "following": prompts[-1]["prompt_id"] if len(prompts) == FILES else None}


def question_of(body: str) -> str:
    """What a stored request asks, or the request itself where it is of another form."""
    try:
        return StoredRequest.from_json(body).question
    except (ValueError, LookupError, TypeError):
        return json.dumps(body)
