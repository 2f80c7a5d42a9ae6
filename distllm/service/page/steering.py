"""What a page orders about a job: a form each, which leads back to the job."""

from aiohttp import web

from distllm.orders import order_cancel, order_pause, order_resume, order_retry, order_retry_truncated
from distllm.service.endpoint import desk_of, job_of, known_job_of
from distllm.service.page.rendering import elsewhere, page


async def pause_job(request: web.Request) -> web.Response:
    """Ask nothing more of a job."""
    desk, job_id = desk_of(request), job_of(request)
    await order_pause(desk.database, job_id, desk.clock.now())
    return elsewhere(f"/jobs/{job_id}")


async def resume_job(request: web.Request) -> web.Response:
    """Go on with a job that is paused."""
    job_id = job_of(request)
    await order_resume(desk_of(request).database, job_id)
    return elsewhere(f"/jobs/{job_id}")


async def ask_whether_to_cancel(request: web.Request) -> web.Response:
    """Have what cannot be undone confirmed."""
    return page(request, "cancel.html", job=await known_job_of(request))


async def cancel_job(request: web.Request) -> web.Response:
    """End a job at once."""
    desk, job_id = desk_of(request), job_of(request)
    await order_cancel(desk.database, job_id, desk.clock.now(), lambda _: None)
    return elsewhere(f"/jobs/{job_id}")


async def retry_job(request: web.Request) -> web.Response:
    """Ask again what failed."""
    desk, job_id = desk_of(request), job_of(request)
    await order_retry(desk.database, job_id, desk.clock.now(), lambda _: None)
    return elsewhere(f"/jobs/{job_id}")


async def retry_truncated(request: web.Request) -> web.Response:
    """Ask again, with more room, what was cut."""
    desk, job_id = desk_of(request), job_of(request)
    await order_retry_truncated(desk.database, job_id, desk.aliases, desk.clock.now())
    return elsewhere(f"/jobs/{job_id}")
