"""The operations on jobs."""

from aiohttp import web

from distllm.orders import order_cancel, order_pause, order_resume, order_retry, order_retry_truncated
from distllm.service.endpoint import body_of, desk_of, job_of, known_job_of, query_of, told
from distllm.service.models import (
    Cancelled,
    FailurePage,
    FailuresQuery,
    JobPage,
    JobsQuery,
    Paused,
    ResultPage,
    ResultsQuery,
    Resumed,
    Retried,
    Retry,
)
from distllm.store.pages import answer_page, failure_page, job_page


async def list_jobs(request: web.Request) -> web.Response:
    """Jobs, newest first."""
    query = query_of(request, JobsQuery)
    rows = await job_page(desk_of(request).database.read, query.before, query.limit, query.state)
    more = len(rows) == query.limit
    return told(JobPage, {"jobs": rows, "next": rows[-1]["job_id"] if more else None})


async def show_job(request: web.Request) -> web.Response:
    """Where a job stands."""
    text = await desk_of(request).glances.of(job_of(request))
    return web.Response(text=text, content_type="application/json")


async def list_results(request: web.Request) -> web.Response:
    """The prompts of a job, each with what came of it."""
    query, job_id = query_of(request, ResultsQuery), (await known_job_of(request))["job_id"]
    ordinal, prompt_id = map(int, query.cursor.split("."))
    rows = await answer_page(
        desk_of(request).database.read,
        job_id,
        (ordinal, prompt_id),
        query.limit,
        document=query.document,
        prompt=query.prompt,
        state=query.state,
    )
    last = rows[-1] if len(rows) == query.limit else None
    following = None if last is None else f"{last['ordinal']}.{last['prompt_id']}"
    for row in rows:
        del row["ordinal"]
    return told(ResultPage, {"job_id": job_id, "results": rows, "next": following})


async def list_failures(request: web.Request) -> web.Response:
    """The prompts of a job that failed for good."""
    query, job_id = query_of(request, FailuresQuery), (await known_job_of(request))["job_id"]
    rows = await failure_page(desk_of(request).database.read, job_id, query.cursor, query.limit)
    following = rows[-1]["prompt_id"] if len(rows) == query.limit else None
    return told(FailurePage, {"job_id": job_id, "failures": rows, "next": following})


async def pause_job(request: web.Request) -> web.Response:
    """Ask nothing more of a job."""
    desk = desk_of(request)
    return told(Paused, await order_pause(desk.database, job_of(request), desk.clock.now()))


async def resume_job(request: web.Request) -> web.Response:
    """Go on with a job that is paused."""
    return told(Resumed, await order_resume(desk_of(request).database, job_of(request)))


async def cancel_job(request: web.Request) -> web.Response:
    """End a job at once."""
    desk = desk_of(request)
    facts = await order_cancel(desk.database, job_of(request), desk.clock.now(), lambda _: None)
    return told(Cancelled, facts)


async def retry_job(request: web.Request) -> web.Response:
    """Ask again what failed, or what was cut."""
    desk, job_id = desk_of(request), job_of(request)
    now = desk.clock.now()
    if (await body_of(request, Retry)).truncated:
        return told(Retried, await order_retry_truncated(desk.database, job_id, desk.aliases, now))
    return told(Retried, await order_retry(desk.database, job_id, now, lambda _: None))
