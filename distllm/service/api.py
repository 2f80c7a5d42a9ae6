"""The room of the API: its table of operations, and the few that are about no job."""

import os
from functools import cache
from typing import Any

from aiohttp import web

from distllm.domain.errors import UsageError
from distllm.insights import resting
from distllm.presets import list_presets
from distllm.service import jobs, models
from distllm.service.endpoint import Endpoint, desk_of, told
from distllm.service.openapi import openapi
from distllm.service.room import Room
from distllm.service.stream import stream_events
from distllm.service.submitting import KEY, KEY_HEADER, submit

PREFIX = "/api/v1"


async def show_service(request: web.Request) -> web.Response:
    """The service itself."""
    desk = desk_of(request)
    rests = await resting(desk.database.read, desk.clock.now())
    facts = {
        "version": desk.version,
        "pid": os.getpid(),
        "coordinating": desk.coordinating(),
        "coordinator": await desk.database.read.coordinator(),
        "stopping": desk.leaving(),
        "hours": desk.hours,
        "rests_until": None if rests is None else rests.until.isoformat(),
    }
    return told(models.Service, facts)


async def list_workers(request: web.Request) -> web.Response:
    """The workers."""
    return told(models.Workers, {"workers": await desk_of(request).roster()})


async def show_presets(request: web.Request) -> web.Response:
    """The sets of questions that can be called by name."""
    found = []
    for each in list_presets(desk_of(request).presets):
        if isinstance(each.preset, UsageError):
            continue
        preset = each.preset
        questions = [
            {"name": asked.name, "text": asked.text, "max_tokens": asked.max_tokens or preset.max_tokens}
            for asked in preset.templates
        ]
        found.append({"name": each.name, "description": preset.description, "questions": questions})
    return told(models.Presets, {"presets": found})


async def show_document(request: web.Request) -> web.Response:
    """The document of this API."""
    return web.json_response(document(desk_of(request).version))


@cache
def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of this API."""
    return openapi(ENDPOINTS, PREFIX, version)


_OF_JOB = (404, 422)

ENDPOINTS = (
    Endpoint("GET", "", "showService", "The service itself.", show_service, models.Service),
    Endpoint("GET", "/openapi.json", "showDocument", "This document.", show_document),
    Endpoint(
        "POST",
        "/jobs",
        "submitJob",
        "Make a job; 200 instead of 201 where the same request has made it already.",
        submit,
        models.Submitted,
        status=201,
        also=(200,),
        takes={"application/json": models.TextSubmission, "multipart/form-data": models.Upload},
        headers={KEY_HEADER: KEY},
        statuses=(400, 408, 409, 413, 415, 422),
    ),
    Endpoint(
        "GET",
        "/jobs",
        "listJobs",
        "Jobs, newest first.",
        jobs.list_jobs,
        models.JobPage,
        query=models.JobsQuery,
        statuses=(422,),
    ),
    Endpoint("GET", "/jobs/{job}", "showJob", "Where a job stands.", jobs.show_job, models.Job, statuses=(404,)),
    Endpoint(
        "GET",
        "/jobs/{job}/results",
        "listResults",
        "All prompts of a job in the order of submission, each with its answer once it has one.",
        jobs.list_results,
        models.ResultPage,
        query=models.ResultsQuery,
        statuses=_OF_JOB,
    ),
    Endpoint(
        "GET",
        "/jobs/{job}/failures",
        "listFailures",
        "The prompts of a job that failed for good.",
        jobs.list_failures,
        models.FailurePage,
        query=models.FailuresQuery,
        statuses=_OF_JOB,
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/pause",
        "pauseJob",
        "Ask nothing more of a job until it is resumed.",
        jobs.pause_job,
        models.Paused,
        statuses=(404, 409),
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/resume",
        "resumeJob",
        "Go on with a job that is paused.",
        jobs.resume_job,
        models.Resumed,
        statuses=(404, 409),
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/cancel",
        "cancelJob",
        "End a job at once; the answers it has are kept.",
        jobs.cancel_job,
        models.Cancelled,
        statuses=(404, 409),
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/retry",
        "retryJob",
        "Ask again what failed, or with more room what was cut.",
        jobs.retry_job,
        models.Retried,
        takes={"application/json": models.Retry},
        must_take=False,
        statuses=(400, 404, 409, 413, 415, 422),
    ),
    Endpoint("GET", "/workers", "listWorkers", "The workers, as they were last seen.", list_workers, models.Workers),
    Endpoint("GET", "/presets", "listPresets", "Sets of questions to call by name.", show_presets, models.Presets),
    Endpoint(
        "GET",
        "/events",
        "streamEvents",
        "What happens, as server-sent events.",
        stream_events,
        headers={"Last-Event-ID": {"description": "The last event that is known: what came after it is told first."}},
    ),
)


def api_room() -> Room:
    """The API, below /api/v1."""
    return Room(PREFIX, [web.route(each.method, PREFIX + each.path, each.handler) for each in ENDPOINTS])
