"""The paths of the page."""

from aiohttp import web

from distllm.service.page.answers import show_answer, show_document, show_text
from distllm.service.page.downloads import download
from distllm.service.page.jobs import show_failures, show_job, show_jobs
from distllm.service.page.login import Login
from distllm.service.page.rendering import refusal
from distllm.service.page.sql import SqlBox
from distllm.service.page.static import show_static
from distllm.service.page.steering import (
    ask_whether_to_cancel,
    cancel_job,
    pause_job,
    resume_job,
    retry_job,
    retry_truncated,
)
from distllm.service.page.submit import show_form, submit
from distllm.service.page.workers import show_workers
from distllm.service.room import Room

_PAGES = [
    web.get("/", show_jobs),
    web.get("/new", show_form),
    web.post("/jobs", submit),
    web.get("/jobs/{job}", show_job),
    web.get("/jobs/{job}/failures", show_failures),
    web.get(r"/jobs/{job}/answers/{prompt:\d{1,19}}", show_answer),
    web.get(r"/jobs/{job}/documents/{ordinal:\d{1,19}}", show_document),
    web.get(r"/jobs/{job}/documents/{ordinal:\d{1,19}}/text", show_text),
    web.get("/jobs/{job}/download/{form}", download),
    web.post("/jobs/{job}/pause", pause_job),
    web.post("/jobs/{job}/resume", resume_job),
    web.get("/jobs/{job}/cancel", ask_whether_to_cancel),
    web.post("/jobs/{job}/cancel", cancel_job),
    web.post("/jobs/{job}/retry", retry_job),
    web.post("/jobs/{job}/retry-truncated", retry_truncated),
    web.get("/workers", show_workers),
]


def page_rooms(token: str | None) -> list[Room]:
    """The page for those who have `token`; how they show it, and the style, which tell nobody anything of the jobs."""
    login = Login(token)
    door = [web.get("/login", login.show), web.post("/login", login.sign_in)]
    own = [web.get("/sql", SqlBox().show), web.post("/logout", login.sign_out)]
    return [
        Room("/", [*_PAGES, *own], refusal),
        Room("/login", door, refusal, needs_no_token=True),
        Room("/static", [web.get("/static/{name}", show_static)], refusal, needs_no_token=True),
    ]
