"""Every command explains itself, with an example; found by walking the commands, so that none is forgotten."""

from collections.abc import Iterator

import pytest
import typer.main

from distllm.cli.app import run
from distllm.cli.root import app


def commands() -> Iterator[tuple[str, ...]]:
    """All commands and the commands under them."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        yield (name,)
        for below in getattr(command, "commands", {}):
            yield (name, below)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_shows_an_example_of_itself(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"distllm {' '.join(command)}" in said.split("Example:")[1]
