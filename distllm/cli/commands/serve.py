"""The command that goes on: work whatever is submitted, and answer HTTP."""

from typing import Annotated

import typer

from distllm.cli.root import Json, app, finish, given

PORT = 8470


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes a free one.")] = PORT,
    name: Annotated[
        list[str] | None, typer.Option(metavar="N", help="What others call this machine, if it has such a name.")
    ] = None,
    hours: Annotated[
        str | None, typer.Option(metavar="RANGES", help="Ask workers only within these hours: 22:00-07:00.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Work whatever is submitted until stopped, and answer HTTP: a page for people, an API for programs.

    Example: `distllm serve --hours 22:00-07:00`
    """
    from distllm.cli.serve import Listen, serve_jobs

    finish(serve_jobs(given.db, given.config, Listen(host, port, name or []), hours, as_json))
