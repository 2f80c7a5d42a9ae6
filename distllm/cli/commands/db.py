"""Commands that care for the database."""

from pathlib import Path
from typing import Annotated

import typer

from distllm.cli.root import Json, app, finish, given

db = typer.Typer()
app.add_typer(db, name="db")


@db.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    """Care for the database: its place, schema, health, copies.

    Example: `distllm db check`
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@db.command()
def path(as_json: Json = False) -> None:
    """Print where the database is.

    Example: `sqlite3 "$(distllm db path)"`
    """
    from distllm.cli.db import show_path

    finish(show_path(given.db, as_json))


@db.command()
def upgrade(as_json: Json = False) -> None:
    """Bring the database to the newest schema; other commands do so too when they open it.

    Example: `distllm db upgrade`
    """
    from distllm.cli.db import upgrade_schema

    finish(upgrade_schema(given.db, as_json))


@db.command()
def check(
    repair: Annotated[bool, typer.Option("--repair", help="Count anew, and take back what nobody holds.")] = False,
    as_json: Json = False,
) -> None:
    """Look for faults: damage, counters that disagree, leases of the dead. Exit code 1 if there is one.

    Example: `distllm db check --repair`
    """
    from distllm.cli.db import check_database

    finish(check_database(given.db, repair, as_json))


@db.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes.")], as_json: Json = False
) -> None:
    """Copy the database, also while it is worked; an earlier copy is replaced once the new one is whole.

    Example: `distllm db backup answers-of-today.db`
    """
    from distllm.cli.db import back_up_database

    finish(back_up_database(given.db, file, as_json))


@db.command()
def copy(
    url: Annotated[str, typer.Argument(metavar="URL", help="An empty database: postgresql://…")], as_json: Json = False
) -> None:
    """Copy a database from its file to PostgreSQL, with jobs in whatever state; run it again after a kill.

    Nobody writes to the file meanwhile, and nobody uses the copy before it is whole and compared.

    Example: `distllm db copy postgresql://localhost/papers`
    """
    from distllm.cli.db import copy_to_server

    finish(copy_to_server(given.db, url, as_json))


@db.command()
def prune(
    older_than: Annotated[
        int, typer.Option(metavar="DAYS", min=1, max=36_500, help="Only of jobs that ended longer ago than that.")
    ] = 30,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Remove these jobs whole: their prompts and ANSWERS go too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Then shrink the file; only while nobody works the database.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing jobs.")] = False,
    as_json: Json = False,
) -> None:
    """Make the database smaller, also while it is worked. No answer goes unless you say --jobs.

    What nobody reads any more goes: attempts that failed, were lost or came too late, samples of workers, and
    texts that no job needs. Each prompt keeps one attempt: the one that its answer is from, or else the newest
    that failed. The column `attempts` of the views counts what is kept, so it says 1 from then on.

    Example: `distllm db prune --older-than 90 --dry-run`
    """
    from distllm.cli.prune import Pruning, prune_database

    finish(prune_database(given.db, Pruning(older_than, jobs, dry_run, vacuum, yes, as_json)))
