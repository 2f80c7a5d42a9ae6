"""Many commands in one process, which pays for its start once."""

import json
import re
from collections.abc import Sequence

from tests.cli.conftest import Cli

_PROGRAM = """
import json, logging
from pathlib import Path
from distllm.cli.app import run
for arguments in json.loads(Path("commands.json").read_text()):
    # Each command sets up its own log.
    logging.getLogger().handlers.clear()
    print(f"===== {run(arguments)}", flush=True)
"""


def one_after_another(cli: Cli, commands: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Arguments of Python that run all commands."""
    cli.write("commands.json", json.dumps(commands))
    return "-c", _PROGRAM


def outputs(text: str) -> list[tuple[int, str]]:
    """The exit code of each command, and what it printed."""
    first, *rest = re.split(r"^===== (\d+)\r?\n", text, flags=re.MULTILINE)
    return list(zip(map(int, rest[::2]), [first, *rest[1:-2:2]], strict=True))
