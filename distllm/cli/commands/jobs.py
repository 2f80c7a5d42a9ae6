"""Commands about jobs: make them, run them, see where they stand."""

from pathlib import Path
from typing import Annotated

import typer

from distllm.cli.root import LARGEST_NUMBER, JobNumber, Json, app, finish, given
from distllm.domain.bounds import HIGHEST_PRIORITY, HOTTEST, MOST_TOKENS


@app.command()
def submit(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Files, folders (read whole), or - for standard input."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A set of questions: research, summary, analysis.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A question of your own; may be repeated.")
    ] = None,
    job: Annotated[Path | None, typer.Option(metavar="FILE", help="A job file, which may name all of this.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="M", help="The model to ask; `any` takes each worker's own.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="A name for the job.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=MOST_TOKENS, help="The most tokens of one answer.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", min=0.0, max=HOTTEST, help="0 for the likeliest words.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=-HIGHEST_PRIORITY, max=HIGHEST_PRIORITY, help="Jobs with higher numbers go first."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask anew what is answered already.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Only store the job; `distllm resume` runs it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the job would be.")] = False,
    as_json: Json = False,
) -> None:
    """Ask questions about papers, and keep the answers. What is answered already is not asked again.

    Example: `distllm submit --preset research papers/`
    """
    from distllm.cli.submit import Submission, submit_job

    submission = Submission(
        paths=paths or [],
        preset=preset,
        prompts=prompt or [],
        job=job,
        model=model,
        name=name,
        max_tokens=max_tokens,
        temperature=temperature,
        priority=priority,
        fresh=fresh,
        detach=detach,
        dry_run=dry_run,
        as_json=as_json,
    )
    if given.server is not None:
        from distllm.cli.remote.submit import submit_job as send_job

        finish(send_job(given.server, submission))
    finish(submit_job(given.db, given.config, submission))


@app.command()
def status(
    job: Annotated[
        int | None,
        typer.Argument(metavar="[JOB]", min=1, max=LARGEST_NUMBER, help="A job's number; all jobs without it."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it: a job until it has ended, all jobs until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show where jobs stand.

    Example: `distllm status 1`
    """
    if given.server is not None:
        from distllm.cli.remote import jobs as far

        if watch:
            finish(far.watch_jobs(given.server, as_json) if job is None else far.watch_job(given.server, job, as_json))
        finish(far.show_jobs(given.server, as_json) if job is None else far.show_job(given.server, job, as_json))
    if watch:
        from distllm.cli.watch import watch_job, watch_jobs

        finish(watch_jobs(given.db, as_json) if job is None else watch_job(given.db, job, as_json))
    from distllm.cli.status import show_job, show_jobs

    finish(show_jobs(given.db, as_json) if job is None else show_job(given.db, job, as_json))


@app.command()
def resume(
    jobs: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[JOB...]", min=1, max=LARGEST_NUMBER, help="Jobs by number; all that are unfinished without."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Go on with jobs that are unfinished.

    Example: `distllm resume`
    """
    if given.server is not None:
        from distllm.cli.remote.follow import resume_jobs as resume_far

        finish(resume_far(given.server, jobs or [], as_json))
    from distllm.cli.resume import resume_jobs

    finish(resume_jobs(given.db, given.config, jobs or [], as_json))


@app.command()
def pause(job: JobNumber, as_json: Json = False) -> None:
    """Ask nothing more of a job until it is resumed.

    Example: `distllm pause 1`
    """
    if given.server is not None:
        from distllm.cli.remote import jobs as far

        finish(far.pause_job(given.server, job, as_json))
    from distllm.cli.control import pause_job

    finish(pause_job(given.db, job, as_json))


@app.command()
def cancel(job: JobNumber, as_json: Json = False) -> None:
    """End a job at once; the answers it has are kept.

    Example: `distllm cancel 1`
    """
    if given.server is not None:
        from distllm.cli.remote import jobs as far

        finish(far.cancel_job(given.server, job, as_json))
    from distllm.cli.control import cancel_job

    finish(cancel_job(given.db, job, as_json))


@app.command()
def retry(
    job: JobNumber,
    truncated: Annotated[
        bool, typer.Option("--truncated", help="Ask again, with twice the room, where an answer was cut.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask again what failed, as if it had never been tried.

    Example: `distllm retry 1`
    """
    if given.server is not None:
        from distllm.cli.remote import jobs as far

        finish(far.retry_job(given.server, job, truncated=truncated, as_json=as_json))
    from distllm.cli.control import retry_job

    finish(retry_job(given.db, given.config, job, truncated=truncated, as_json=as_json))
