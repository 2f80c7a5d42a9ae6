"""`distllm --server URL submit`: files are sent, and the service reads and works them."""

import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

import aiohttp

from distllm.cli.remote.client import Remote, connected
from distllm.cli.remote.follow import EXIT_INCOMPLETE, follow
from distllm.cli.screen import Ticker, complain, out, print_json, safe
from distllm.cli.submit import Submission, preset_of, with_job_file
from distllm.cli.watch import until_interrupted
from distllm.documents import Source, copied_stdin, find_files
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.text import size_in_words
from distllm.domain.words import count
from distllm.presets import Preset
from distllm.service.models import MOST_DOCUMENTS
from distllm.service.uploads import LARGEST_UPLOAD


def submit_job(url: str, given: Submission) -> int:
    """Send a job to the service at `url`, and follow it unless it is to be detached; return the exit code."""
    given = with_job_file(given)
    if not given.paths:
        raise UsageError("nothing to read: name files or folders, or - for standard input")
    if given.dry_run:
        raise UsageError("--dry-run is for a database here: leave it out, or leave --server out")
    for text in filter(None, (*given.prompts, given.name, given.model)):
        text.encode("utf-8")
    preset = preset_of(given)
    with copied_stdin(given.paths, sys.stdin.buffer if sys.stdin else None) as stdin:
        sources = _sendable(find_files(given.paths, stdin))
        return until_interrupted(_submit(url, preset, given, sources))


def _sendable(sources: Sequence[Source]) -> list[Source]:
    """What can be sent; the rest is complained of."""
    for source in sources:
        if source.problem is not None:
            complain(f"not sent: {source.name}: {source.problem}")
    found = [source for source in sources if source.problem is None]
    size = sum(source.size for source in found)
    if not found:
        raise DistllmError("no file can be sent")
    if len(found) > MOST_DOCUMENTS or size > LARGEST_UPLOAD:
        raise UsageError(
            f"{count(len(found), 'file')} of {size_in_words(size)} are more than can be sent at once "
            f"({MOST_DOCUMENTS:,} files, {size_in_words(LARGEST_UPLOAD)}): submit them in pieces"
        )
    return found


async def _submit(url: str, preset: Preset, given: Submission, sources: Sequence[Source]) -> int:
    ticker = Ticker()
    async with connected(url) as remote:
        try:
            ticker.show(f"sending {count(len(sources), 'file')} to {url}")
            created = await _send(remote, preset, given, sources)
        finally:
            ticker.clear()
        job_id = created["job_id"]
        if created["known"]:
            ticker.say(f"job {job_id} asks exactly this and has not ended: going on with it")
        code = EXIT_INCOMPLETE if len(sources) < len(given.paths) else 0
        if given.detach:
            if given.as_json:
                print_json({"job_id": job_id})
            else:
                out.print(safe(f"Job {job_id} is stored; look at it with: distllm --server {url} status {job_id}"))
            return code
        return await follow(remote, [job_id], ticker, (lambda facts: facts[0]) if given.as_json else None) or code


async def _send(remote: Remote, preset: Preset, given: Submission, sources: Sequence[Source]) -> dict[str, Any]:
    asked = json.dumps(_asked(preset, given, sources))
    opened: list[BinaryIO] = []

    def form() -> aiohttp.FormData:
        # Names as they are: the service shows them.
        made = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
        made.add_field("request", asked, content_type="application/json")
        for source in sources:
            opened.append(source.path.open("rb"))
            made.add_field("files", opened[-1], filename=_named(source), content_type="application/octet-stream")
        return made

    try:
        # A form that is sent again after a lost connection is the same job.
        return await remote.send("/jobs", form, {"Idempotency-Key": uuid.uuid4().hex})
    finally:
        for file in opened:
            file.close()


def _asked(preset: Preset, given: Submission, sources: Sequence[Source]) -> dict[str, Any]:
    questions = []
    for template in preset.templates:
        question = asdict(template) | {"max_tokens": template.max_tokens or preset.max_tokens}
        questions.append({name: value for name, value in question.items() if value is not None})
    about = sources[0].name if len(sources) == 1 else f"{len(sources)} files"
    asked = {
        "questions": questions,
        "name": (given.name or f"{preset.name} on {about}")[:255],
        "model": given.model,
        "max_tokens": given.max_tokens,
        "temperature": preset.temperature if given.temperature is None else given.temperature,
        "priority": given.priority or 0,
        "fresh": given.fresh,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _named(source: Source) -> str:
    return "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in source.name)[-255:]
