"""A job to take away, as `distllm export` writes it."""

from aiohttp import web

from distllm.export.formats import Format, written
from distllm.export.source import open_source
from distllm.service.endpoint import desk_of, job_of
from distllm.service.problems import RefusedError

# Parquet is not written as it comes, but as a whole.
_KINDS = {
    Format.JSONL: "application/jsonl",
    Format.CSV: "text/csv",
    Format.MARKDOWN: "text/markdown",
    Format.HTML: "text/html",
}
_SUFFIXES = {Format.MARKDOWN: "md"}


async def download(request: web.Request) -> web.StreamResponse:
    """The answers of a job in a format, as they are read."""
    job_id, given = job_of(request), request.match_info["form"]
    form = next((each for each in _KINDS if each == given), None)
    if form is None:
        raise RefusedError(404, f"there is no such format: choose one of {', '.join(_KINDS)}")
    source = await open_source(desk_of(request).database.read, job_id, wide=False)
    name = f"job-{job_id}.{_SUFFIXES.get(form, form)}"
    response = web.StreamResponse(
        headers={
            "Content-Type": f"{_KINDS[form]}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
        }
    )
    if request.method == "HEAD":
        return response
    await response.prepare(request)
    async for piece in written(source, form, wide=False):
        await response.write(piece)
    await response.write_eof()
    return response
