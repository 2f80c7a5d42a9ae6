"""Commands about presets: which there are, and what they ask."""

from typing import Annotated

import typer

from distllm.cli.root import Json, app, finish
from distllm.domain.errors import UsageError

presets = typer.Typer()
app.add_typer(presets, name="presets")


@presets.callback(invoke_without_command=True)
def _list_without_command(context: typer.Context, as_json: Json = False) -> None:
    """List the sets of questions: built-in ones, and your own.

    Your own are in ./presets and the configuration folder.

    Example: `distllm presets show research`
    """
    if context.invoked_subcommand is None:
        _list(as_json)
    elif as_json:
        raise UsageError("--json stands behind the command: distllm presets list --json")


@presets.command("list")
def list_(as_json: Json = False) -> None:
    """List the sets of questions there are. Exit code 1 if the file of one cannot be followed.

    Example: `distllm presets list`
    """
    _list(as_json)


def _list(as_json: bool) -> None:
    from distllm.cli.presets import show_presets

    finish(show_presets(as_json))


@presets.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset, or the path of a .json file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print its file, to begin one of your own with.")] = False,
) -> None:
    """Show what a preset asks.

    Example: `distllm presets show research`
    """
    from distllm.cli.presets import show_preset

    finish(show_preset(name, as_json))
