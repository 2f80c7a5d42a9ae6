"""The commands and their options."""

import logging
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import click
import typer

from distllm import __version__
from distllm.domain.errors import DistllmError

app = typer.Typer(
    name="distllm",
    help="Have your own local models read every paper, and keep the answers in SQLite.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How a table is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Level(StrEnum):
    """How much is logged to stderr."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Context:
    """What the options before the command say."""

    db = Path("distllm.db")
    config: Path | None = None


_given = Context()

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distllm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    db: Annotated[Path, typer.Option(metavar="PATH", envvar="DISTLLM_DB", help="The database file.")] = Path(
        "distllm.db"
    ),
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="DISTLLM_CONFIG", help="The configuration file."),
    ] = None,
    log_level: Annotated[
        Level, typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="DEBUG also shows tracebacks.")
    ] = Level.WARNING,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.basicConfig(level=log_level.value, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    _given.db, _given.config = db, config


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

    _exit(
        submit_job(
            _given.db,
            _given.config,
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

    _exit(show_jobs(_given.db, as_json) if job is None else show_job(_given.db, job, as_json))


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

    _exit(resume_jobs(_given.db, _given.config, jobs or []))


@app.command()
def results(
    job: Annotated[int, typer.Argument(metavar="JOB", help="A job's number.")],
    document: Annotated[str | None, typer.Option(metavar="D", help="Only this document.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="P", help="Only this question, by its name.")] = None,
    as_json: Json = False,
) -> None:
    """Read a job's answers.

    Example: `distllm results 1 --prompt key_findings`
    """
    from distllm.cli.results import show_results

    _exit(show_results(_given.db, job, document, prompt, as_json))


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A SELECT statement.")],
    output: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Ask the database in SQL; it is only read.

    Example: `distllm query "select document, prompt, answer from answers"`
    """
    from distllm.cli.query import show_query

    _exit(show_query(_given.db, sql, Format.JSON.value if as_json else output.value))


def _exit(code: int) -> None:
    raise typer.Exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        code = app(list(arguments), standalone_mode=False)
    except DistllmError as error:
        return _complain(error, error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        typer.echo("distllm: interrupted; what was stored is kept, and `distllm resume` goes on with it", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _complain(error, 1, f"{type(error).__name__}: ")
    return code if isinstance(code, int) else 0


def _complain(error: Exception, code: int, kind: str = "") -> int:
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        logging.getLogger("distllm").debug("", exc_info=error)
    typer.echo(f"distllm: {kind}{error}", err=True)
    return code
