"""`python -m tests.cluster`: see `--help`."""

import logging
import sys

from tests.chaos.driver import drive
from tests.cluster.options import parse
from tests.cluster.report import Report
from tests.cluster.run import Run
from tests.postgres_server import OLDEST, programs


def main(arguments: list[str] | None = None) -> int:
    """Run, print the report, and return the exit code."""
    options = parse(arguments)
    if programs() is None:
        sys.exit(f"PostgreSQL {OLDEST} or newer is not installed")
    report = Report(options)
    # Servers say much of connections that are reset on purpose.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    return drive(
        "cluster", options.folder, lambda folder: Run(options, folder, report).run(), report, keep=options.keep
    )


if __name__ == "__main__":
    sys.exit(main())
