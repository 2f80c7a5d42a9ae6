"""What is plainly right is taken as it is; whatever is taken is what typer itself would have made of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer._click.exceptions import BadParameter

from distllm.cli.app import app
from distllm.cli.plain_values import Coercion
from distllm.cli.root import Level

NUMBERS = ["1", "0", "007", "-1", "+1", " 5", "5 ", "1.0", "1e3", "1_000", "", "one", "\uff11", "9" * 18, "9" * 30]
LIMITED = [*NUMBERS, "1000000", "1000001", "-1000000", "-1000001"]


def made(coercion: Any, parameter: Any, value: Any) -> tuple[type, Any] | str:
    """What becomes of a value: its type with it, or the complaint."""
    try:
        found = coercion.coerce(value, param=parameter, ctx=typer.Context(typer.main.get_command(app)))
    except BadParameter as error:
        return error.message
    return type(found), found


@pytest.mark.parametrize(
    ("command", "name", "values"),
    [
        ("status", "job", [None, *NUMBERS]),
        ("resume", "jobs", [None, (), ("1", "2"), ("0",), ("x",)]),
        ("submit", "priority", [None, *LIMITED]),
        ("submit", "max_tokens", [None, *LIMITED]),
        ("submit", "temperature", [None, "0", "1.5", "3", "x"]),
        ("submit", "paths", [None, ("a", "-"), ("",)]),
        ("submit", "model", [None, "m", ""]),
        ("export", "output_format", [None, "csv", "CSV", "pdf"]),
        ("", "db", ["a.db", "", "-", ".", "a/../b.db"]),
        ("", "config", [None, "workers.json", ""]),
        ("", "log_level", [Level.INFO, "info", "DEBUG", "loud"]),
    ],
)
def test_every_value_becomes_what_typer_makes_of_it(command: str, name: str, values: list[Any]) -> None:
    group: Any = typer.main.get_command(app)
    [parameter] = [each for each in (group.commands[command] if command else group).params if each.name == name]
    typers = parameter.get_runtime_param()
    for value in values:
        assert made(Coercion(parameter), parameter, value) == made(typers, parameter, value), value


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--db", "none.db", "status"], ["status", "1"]])
def test_no_simple_command_imports_what_checks_values(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from distllm.cli.app import run; run(sys.argv[1:]); "
        "print([name for name in ('pydantic', 'rich.markdown', 'sqlalchemy', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done
