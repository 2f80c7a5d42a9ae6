"""Answers to read: one with all that is known of it, or all about one document; and what was read of that."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from distllm.service.endpoint import desk_of, job_of, known_job_of, query_of
from distllm.service.models import LARGEST_NUMBER, Query
from distllm.service.page.jobs import question_of
from distllm.service.page.rendering import page
from distllm.service.problems import RefusedError
from distllm.store.looks import answer_of, answers_about, attempts_of, beside, file_of, text_of

TEXT_CHARACTERS = 100_000
"""Of a document's text, on one page."""


class TextQuery(Query):
    """Where the text that is shown begins."""

    first: Annotated[int, Field(ge=0, le=2**40)] = 0


async def show_answer(request: web.Request) -> web.Response:
    """One answer, or why there is none."""
    read, job_id = desk_of(request).database.read, job_of(request)
    prompt_id = _number(request, "prompt")
    answer = await answer_of(read, job_id, prompt_id)
    if answer is None:
        raise RefusedError(404, f"job {job_id} has no prompt {prompt_id}: choose one of those it has")
    if answer["question"] is None:
        answer["question"] = question_of(answer["body"])
    before, after = await beside(read, job_id, answer["ordinal"], prompt_id)
    attempts = await attempts_of(read, prompt_id)
    return page(request, "answer.html", answer=answer, attempts=attempts, before=before, after=after)


async def show_document(request: web.Request) -> web.Response:
    """One document with all answers about it, one below the other."""
    read, ordinal, job = desk_of(request).database.read, _number(request, "ordinal"), await known_job_of(request)
    job_id = job["job_id"]
    file = await file_of(read, job_id, ordinal)
    if file is None:
        raise RefusedError(404, f"job {job_id} has no such document: choose one of those it has")
    answers = [] if file["document_id"] is None else await answers_about(read, job_id, file["document_id"])
    return page(request, "document.html", job=job, file=file, answers=answers)


async def show_text(request: web.Request) -> web.Response:
    """The text that was read of a document, a piece at a time."""
    read, job_id, query = desk_of(request).database.read, job_of(request), query_of(request, TextQuery)
    ordinal = _number(request, "ordinal")
    file = await file_of(read, job_id, ordinal)
    text = await text_of(read, job_id, ordinal, query.first, TEXT_CHARACTERS)
    if file is None or text is None:
        raise RefusedError(404, "nothing was read of such a document: choose one of those that the job has")
    following = query.first + TEXT_CHARACTERS
    more = following < file["characters"]
    return page(
        request,
        "text.html",
        job_id=job_id,
        file=file,
        text=text,
        previous=max(0, query.first - TEXT_CHARACTERS) if query.first else None,
        following=following if more else None,
    )


def _number(request: web.Request, name: str) -> int:
    number = int(request.match_info[name])
    if number > LARGEST_NUMBER:
        raise RefusedError(404, "there is nothing of such a number")
    return number
