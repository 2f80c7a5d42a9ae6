"""The form that makes a job, as the API does: files or a text, a preset or questions of one's own."""

import re
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from distllm.domain.errors import DistllmError, UsageError
from distllm.presets import list_presets
from distllm.presets.schema import first_fault
from distllm.service.endpoint import desk_of
from distllm.service.models import Submission
from distllm.service.page.rendering import elsewhere, page
from distllm.service.problems import RefusedError, refused_of
from distllm.service.submitting import make_job, refuse_if_leaving
from distllm.service.uploads import received

_FIELDS = ("text", "preset", "questions", "model", "name", "max_tokens", "fresh")
_PASTED = "pasted text"
_BLANK_LINES = re.compile(r"\n\s*\n")


async def show_form(request: web.Request) -> web.Response:
    """An empty form."""
    return await _form(request, dict.fromkeys(_FIELDS, ""))


async def submit(request: web.Request) -> web.Response:
    """Make a job and go to it; else the form again, as it was filled in, with what is wrong."""
    desk = desk_of(request)
    filled = dict.fromkeys(_FIELDS, "")
    try:
        refuse_if_leaving(desk)
        async with received(request, *_FIELDS) as form:
            filled |= {name: data.decode("utf-8", "replace") for name, data in form.fields.items()}
            created = await make_job(desk, _submission(filled), form.files, None)
    except (RefusedError, DistllmError) as error:
        refused = refused_of(error)
        return await _form(request, filled, refused.detail, refused.status)
    return elsewhere(f"/jobs/{created.job_id}")


def _submission(filled: dict[str, str]) -> Submission:
    text, questions = filled["text"].strip(), filled["questions"].replace("\r\n", "\n").strip()
    if filled["preset"] and questions:
        raise UsageError("a preset and questions of your own are given: choose one of them")
    if not filled["preset"] and not questions:
        raise UsageError("nothing to ask: choose a preset, or write a question")
    given: dict[str, Any] = {
        "texts": [{"name": _PASTED, "text": text}] if text else [],
        "preset": filled["preset"] or None,
        "prompts": _BLANK_LINES.split(questions) if questions else None,
        "model": filled["model"].strip() or None,
        "name": filled["name"].strip() or None,
        "max_tokens": _whole(filled["max_tokens"].strip()),
        "fresh": bool(filled["fresh"]),
    }
    try:
        return Submission.model_validate(given)
    except ValidationError as error:
        raise RefusedError(422, first_fault(error, [Submission])) from None


def _whole(text: str) -> int | str | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else text or None


async def _form(
    request: web.Request, filled: dict[str, str], problem: str | None = None, status: int = 200
) -> web.Response:
    desk = desk_of(request)
    presets = [each for each in list_presets(desk.presets) if not isinstance(each.preset, UsageError)]
    models = sorted({model["model"] for worker in await desk.roster() for model in worker["models"]})
    return page(request, "new.html", status, filled=filled, presets=presets, models=models, problem=problem)
