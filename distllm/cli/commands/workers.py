"""Commands about workers: who they are, how they are, and how they come into the configuration."""

from typing import Annotated

import typer

from distllm.cli.root import Json, app, finish, given
from distllm.domain.errors import UsageError

workers = typer.Typer()
app.add_typer(workers, name="workers")


@workers.callback(invoke_without_command=True)
def _list_without_command(context: typer.Context, as_json: Json = False) -> None:
    """See, try, find and name the servers that answer.

    Example: `distllm workers check`
    """
    if given.server is not None and context.invoked_subcommand not in (None, "list"):
        raise UsageError(f"workers {context.invoked_subcommand} is done here: leave --server out")
    if context.invoked_subcommand is None:
        _list(as_json)
    elif as_json:
        raise UsageError("--json stands behind the command: distllm workers list --json")


@workers.command("list")
def list_(as_json: Json = False) -> None:
    """List the workers of the configuration and of the database, without contacting any.

    Example: `distllm workers list`
    """
    _list(as_json)


def _list(as_json: bool) -> None:
    if given.server is not None:
        from distllm.cli.remote import jobs as far

        finish(far.list_workers(given.server, as_json))
    from distllm.cli.workers import list_workers

    finish(list_workers(given.db, given.config, as_json))


@workers.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Only these workers.")] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Ask each for one token too: only that proves that its model answers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the workers now how they are. Exit code 0 if all can be used, 1 if some cannot, 4 if none can.

    Example: `distllm workers check --generate`
    """
    from distllm.cli.workers import check_now

    finish(check_now(given.db, given.config, names or [], generate, as_json))


@workers.command()
def scan(
    cidr: Annotated[
        str | None, typer.Argument(metavar="[CIDR]", help="A range such as 192.168.1.0/24; without it, this machine.")
    ] = None,
    port: Annotated[
        list[int] | None, typer.Option(metavar="N", min=1, max=65535, help="Only this port; may be repeated.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Add what is found to the configuration.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Scan also what is not a private network.")] = False,
    as_json: Json = False,
) -> None:
    """Look for servers at their usual ports: 11434 (Ollama), 1234 (LM Studio), 8080, 8000 and 9931.

    Example: `distllm workers scan 192.168.1.0/24`
    """
    from distllm.cli.scan import scan_for_workers

    finish(scan_for_workers(given.config, cidr, port or [], add=add, sure=yes, as_json=as_json))


@workers.command()
def add(
    address: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where it listens; https:// may stand before.")],
    kind: Annotated[
        str | None,
        typer.Option("--type", metavar="T", help="ollama, lm_studio or openai; without it, the server is asked."),
    ] = None,
    name: Annotated[str | None, typer.Option("--id", metavar="I", help="Its name; by default its host's.")] = None,
    model: Annotated[str | None, typer.Option(metavar="M", help="The only model to use there.")] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many requests it may have at once.")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Its context window in tokens, if it does not tell it.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="E", help="chat, completions or generate.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The variable of the environment that holds its key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a worker to the configuration file in use, or to a new ./workers.json.

    Example: `distllm workers add 192.168.1.20 --type ollama --model llama3.1:8b`
    """
    from distllm.cli.worker_edit import NewWorker, add

    new = NewWorker(address, kind, name, model, max_concurrent, context_length, endpoint, api_key_env)
    finish(add(given.config, new, as_json))


@workers.command()
def remove(name: Annotated[str, typer.Argument(metavar="ID", help="The worker's id.")], as_json: Json = False) -> None:
    """Remove a worker from the configuration file in use; what it answered is kept.

    Example: `distllm workers remove studio`
    """
    from distllm.cli.worker_edit import remove

    finish(remove(given.config, name, as_json))
