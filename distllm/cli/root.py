"""The command itself: the options that stand before every command, and what commands are declared on."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from distllm import __version__
from distllm.cli.plain_values import take_plain_values
from distllm.domain.errors import UsageError
from distllm.domain.places import DatabasePlace, place_of

ORDER = (
    *("submit", "status", "resume", "pause", "cancel", "retry"),
    *("results", "export", "query"),
    *("serve", "workers", "presets", "db"),
)


FAR = frozenset({"submit", "status", "resume", "pause", "cancel", "retry", "results", "workers"})
"""The commands that a service elsewhere can do."""

LARGEST_NUMBER = 2**63 - 1
"""What a column of SQLite can hold."""


class StoppedError(Exception):
    """Ctrl-C where a command has no better answer to it; typer's own is silent."""


class InOrder(TyperGroup):
    """Lists the commands as a person meets them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        take_plain_values(self)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError from None

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in `ORDER`."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    name="distllm",
    cls=InOrder,
    help="Have your own local models read every paper, and keep the answers in SQLite.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich would take three times as long to show help as all the rest of it.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Level(StrEnum):
    """How much is logged to stderr."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Context:
    """What the options before the command say."""

    db: DatabasePlace = Path("distllm.db")
    config: Path | None = None
    server: str | None = None


given = Context()

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobNumber = Annotated[int, typer.Argument(metavar="JOB", min=1, max=LARGEST_NUMBER, help="A job's number.")]


def finish(code: int) -> None:
    """End the command with an exit code."""
    raise typer.Exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distllm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    db: Annotated[
        str, typer.Option(metavar="PLACE", envvar="DISTLLM_DB", help="The database: a file, or postgresql://…")
    ] = "distllm.db",
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="DISTLLM_CONFIG", readable=False, help="The configuration file."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="DISTLLM_SERVER", help="A `distllm serve` elsewhere, instead of a database."
        ),
    ] = None,
    log_level: Annotated[
        Level, typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="DEBUG also shows tracebacks.")
    ] = Level.WARNING,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from distllm.cli.logs import log_to_stderr

    log_to_stderr(log_level.value)
    given.db, given.config, given.server = place_of(db), config, None
    if server is not None:
        if context.invoked_subcommand not in FAR:
            raise UsageError(
                f"{context.invoked_subcommand} is done with a database here: leave --server out "
                f"(it is for {', '.join(sorted(FAR))})"
            )
        from distllm.cli.remote.client import server_url

        given.server = server_url(server)
