"""Commands about answers: read them, and ask the database."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distllm.cli.root import JobNumber, Json, app, finish, given
from distllm.export.formats import Format


class Printed(StrEnum):
    """How a table is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command()
def results(
    job: JobNumber,
    document: Annotated[str | None, typer.Option(metavar="D", help="Only this document.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="P", help="Only this question, by its name.")] = None,
    as_json: Json = False,
) -> None:
    """Read a job's answers.

    Example: `distllm results 1 --prompt key_findings`
    """
    if given.server is not None:
        from distllm.cli.remote import jobs as far

        finish(far.show_results(given.server, job, document, prompt, as_json))
    from distllm.cli.results import show_results

    finish(show_results(given.db, job, document, prompt, as_json))


@app.command()
def export(
    job: JobNumber,
    output_format: Annotated[
        Format | None, typer.Option("--format", help="What to write; without it, what the file's name says.")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="One row a document, one column a question.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; standard output without it.")
    ] = None,
) -> None:
    """Take answers away: a spreadsheet, a report, a data frame.

    An existing file is replaced once the new one is whole. In CSV, a text that a spreadsheet would run as a formula
    has an apostrophe before it.

    Example: `distllm export 1 --wide -o answers.csv`
    """
    from distllm.cli.export import export_job

    finish(export_job(given.db, job, output_format, wide, output))


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A SELECT statement.")],
    output: Annotated[Printed, typer.Option("--format", help="How to print the rows.")] = Printed.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The most rows; without it, 1,000 in a table and a million elsewhere."),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.001, help="When to give up.")] = 30.0,
) -> None:
    """Ask the database in SQL; it is only read.

    JSON has a blob as `{"$base64": true, "encoded": ...}`, as Datasette has. In CSV, a text that a spreadsheet would
    run as a formula has an apostrophe before it.

    Example: `distllm query "select document, prompt, answer from answers"`
    """
    from distllm.cli.query import show_query

    finish(show_query(given.db, sql, Printed.JSON.value if as_json else output.value, limit, timeout))
