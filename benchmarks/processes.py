"""Servers of this clone as processes of their own, so that what they cost is not the client's."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]

# Everything is on the loopback, whatever proxy the environment names.
os.environ["no_proxy"] = "*"


class Server(NamedTuple):
    """A process that serves on the loopback."""

    process: subprocess.Popen[bytes]
    port: int


def require_litellm(parser: argparse.ArgumentParser) -> None:
    """Say what to do where LiteLLM is not installed."""
    if find_spec("litellm") is None:
        parser.error("LiteLLM is not installed: run this with `uv run --group bench`, or give --without-litellm")


@contextmanager
def serving(module: str, *options: object) -> Iterator[Server]:
    """Run a module that prints its address as its first line and serves until its standard input ends."""
    command = [sys.executable, "-m", module, *map(str, options)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            port = urlsplit(process.stdout.readline().decode().strip()).port
            if port is None:
                raise SystemExit(f"{module} did not start; see why: {' '.join(command)}")
            yield Server(process, port)
        finally:
            process.kill()
