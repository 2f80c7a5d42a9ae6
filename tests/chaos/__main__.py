"""`python -m tests.chaos`: see `--help`."""

import sys

from tests.chaos.campaign import Campaign
from tests.chaos.driver import drive
from tests.chaos.options import parse
from tests.chaos.report import Report


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign, print its report, and return the exit code."""
    options = parse(arguments)
    report = Report(options)
    return drive(
        "chaos", options.folder, lambda folder: Campaign(options, folder, report).run(), report, keep=options.keep
    )


if __name__ == "__main__":
    sys.exit(main())
