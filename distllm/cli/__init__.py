"""The command line: parse, call, render. Each command imports what it needs when it runs."""

import sys


def main() -> None:
    """Run `distllm` and exit with its code: errors are one line, never a traceback."""
    from distllm.cli.app import run

    sys.exit(run(sys.argv[1:]))
