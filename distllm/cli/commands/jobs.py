"""Commands about jobs: make them, run them, see where they stand."""

from pathlib import Path
from typing import Annotated

import typer

from distllm.cli.root import Json, app, finish, given


@app.command()
def submit(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, folders (read whole), or - for standard input.")
    ],
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A set of questions: research, summary, analysis.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A question of your own; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="M", help="The model to ask; `any` takes each worker's own.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="A name for the job.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most tokens of one answer.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", min=0.0, help="0 for the likeliest words.")] = None,
    priority: Annotated[int, typer.Option(metavar="N", help="Jobs with higher numbers go first.")] = 0,
    detach: Annotated[bool, typer.Option("--detach", help="Only store the job; `distllm resume` runs it.")] = False,
) -> None:
    """Ask questions about papers, and keep the answers.

    Example: `distllm submit --preset research papers/`
    """
    from distllm.cli.submit import Submission, submit_job

    finish(
        submit_job(
            given.db,
            given.config,
            Submission(paths, preset, prompt or [], model, name, max_tokens, temperature, priority, detach),
        )
    )


@app.command()
def status(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", help="A job's number; all jobs without it.")] = None,
    as_json: Json = False,
) -> None:
    """Show where jobs stand.

    Example: `distllm status 1`
    """
    from distllm.cli.status import show_job, show_jobs

    finish(show_jobs(given.db, as_json) if job is None else show_job(given.db, job, as_json))


@app.command()
def resume(
    jobs: Annotated[
        list[int] | None, typer.Argument(metavar="[JOB...]", help="Jobs by number; all that are unfinished without.")
    ] = None,
) -> None:
    """Go on with jobs that are unfinished.

    Example: `distllm resume`
    """
    from distllm.cli.resume import resume_jobs

    finish(resume_jobs(given.db, given.config, jobs or []))
