"""`POST /api/v1/jobs`: a job made of texts and files that are sent."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from distllm.documents import Source
from distllm.documents.text import extract_text
from distllm.domain.errors import UsageError
from distllm.domain.models import Document, Template
from distllm.insights import job_now
from distllm.intake import Created, Request, create
from distllm.presets import Preset, load_preset, preset_of_prompts
from distllm.service.desk import Desk
from distllm.service.endpoint import body_of, desk_of, parsed, told
from distllm.service.models import MOST_DOCUMENTS, InlineText, Submission, Submitted
from distllm.service.problems import RefusedError
from distllm.service.uploads import Sent, received
from distllm.store.pages import model_of_key

KEY_HEADER = "Idempotency-Key"
_LONGEST_KEY = 255
KEY = {
    "description": "The same key with the same request is the same job for ever; with another it is refused.",
    "schema": {"type": "string", "maxLength": _LONGEST_KEY, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}


async def submit(request: web.Request) -> web.Response:
    """Make a job, or find the one that the same request has made; nothing of it is asked here."""
    desk = desk_of(request)
    refuse_if_leaving(desk)
    key = _key(request)
    if request.content_type == "multipart/form-data":
        async with received(request, "request") as form:
            if not form.fields.get("request"):
                raise RefusedError(422, "the form has no part `request`: send what is asked in it, as JSON")
            created = await make_job(desk, parsed(form.fields["request"], Submission), form.files, key)
    else:
        created = await make_job(desk, await body_of(request, Submission), [], key)
    now = await job_now(desk.database.read, created.job_id, desk.clock.now())
    facts = now.facts() | {"known": created.known}
    return told(Submitted, facts, 200 if created.known else 201, Location=f"/api/v1/jobs/{created.job_id}")


def refuse_if_leaving(desk: Desk) -> None:
    """Raises RefusedError once the service was told to stop."""
    if desk.leaving():
        raise RefusedError(503, "the service is stopping: submit it again in a while", Retry_After="30")


async def make_job(desk: Desk, given: Submission, files: Sequence[Sent], key: str | None) -> Created:
    """The job of a submission and the files sent beside it, built; or the one that the same has made already."""
    _refuse_nonsense(given, len(files))
    # The reader reads a few at once, whoever sends them.
    read = await asyncio.gather(*(_of_file(desk, file) for file in files))
    sources = [*await _of_texts(given.texts), *read]
    preset = _preset(given, desk)
    asked = Request(
        sources=_told_apart(sources),
        preset=preset,
        model=await _model(desk, given.model, key),
        name=given.name or f"{preset.name} on {sources[0].name if len(sources) == 1 else f'{len(sources)} files'}",
        max_tokens=given.max_tokens,
        temperature=given.temperature,
        priority=given.priority,
        fresh=given.fresh,
        references=desk.references,
        key=key,
    )
    created = await create(desk.database, asked, desk.clock)
    job = await desk.database.read.job(created.job_id)
    if job is not None and not job["submitted"]:
        await desk.build(created.job_id)
    return created


def _key(request: web.Request) -> str | None:
    given = request.headers.get(KEY_HEADER)
    if given is None:
        return None
    key = given.strip()
    if not key or len(key) > _LONGEST_KEY or not (key.isascii() and key.isprintable()):
        raise RefusedError(422, f"{KEY_HEADER}: give 1 to {_LONGEST_KEY} printable characters, such as a UUID")
    # Batches have keys of their own, which no client can guess at.
    return f"api:{key}"


def _refuse_nonsense(given: Submission, files: int) -> None:
    ways = [given.preset, given.prompts, given.questions]
    if sum(way is not None for way in ways) != 1:
        raise RefusedError(422, "nothing to ask: give exactly one of `preset`, `prompts` and `questions`")
    if not given.texts and not files:
        raise RefusedError(422, "nothing to read: give `texts`, or send `files` in a form")
    if len(given.texts) + files > MOST_DOCUMENTS:
        raise RefusedError(413, f"more than {MOST_DOCUMENTS:,} documents: send less at a time")


def _preset(given: Submission, desk: Desk) -> Preset:
    if given.prompts is not None:
        for prompt in given.prompts:
            _refuse_halves(prompt)
        return preset_of_prompts(given.prompts)
    if given.preset is not None:
        return load_preset(given.preset, desk.presets)
    questions = given.questions or []
    twice = [name for name, uses in Counter(entry.name.casefold() for entry in questions).items() if uses > 1]
    if twice:
        raise UsageError(f"questions: {twice[0]!r} is the name of two of them; rename one")
    return Preset("questions", "", tuple(Template(**entry.model_dump()) for entry in questions))


async def _model(desk: Desk, wanted: str | None, key: str | None) -> str:
    """The model of the job. What came before with the same key had one: workers may have others by now."""
    known = None if key is None else await model_of_key(desk.database.read, key)
    if known is not None and (wanted is None or wanted in desk.names_of(known)):
        return known
    return await desk.choose_model(wanted)


async def _of_texts(given: Sequence[InlineText]) -> list[Source]:
    # Long ones take a while, in which others are to be answered.
    return await asyncio.to_thread(lambda: [_of_text(text) for text in given])


def _of_text(given: InlineText) -> Source:
    _refuse_halves(given.text)
    data = given.text.encode()
    sha256 = hashlib.sha256(data).hexdigest()
    found = extract_text(data)
    return _source(given.name, sha256, len(data), Document(sha256, found.text, None, None, found.problem))


async def _of_file(desk: Desk, file: Sent) -> Source:
    return _source(file.name, file.sha256, file.size, await desk.documents.read(file.path))


def _source(name: str, sha256: str, size: int, document: Document) -> Source:
    # What is remembered of where it came from is what it was: there is no file to go back to.
    return Source(Path(f"sent:{sha256}"), name, 0.0, size, document=document)


def _told_apart(sources: Sequence[Source]) -> list[Source]:
    """Give those that bear the name of an earlier one a number behind it."""
    seen: Counter[str] = Counter()
    found = []
    for source in sources:
        seen[source.name] += 1
        number = f" ({seen[source.name]})" if seen[source.name] > 1 else ""
        found.append(Source(source.path, source.name + number, 0.0, source.size, document=source.document))
    return found


def _refuse_halves(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RefusedError(422, "half of a surrogate pair is no character: send the text in UTF-8") from None
