"""`python -m tests.chaos`: see `--help`."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.campaign import Campaign
from tests.chaos.options import parse
from tests.chaos.report import Report


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign, print its report, and return the exit code."""
    options = parse(arguments)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=options.folder)).resolve()
    report = Report(options)
    verdict, code = "chaos: FAILED: the driver itself broke", 1
    try:
        asyncio.run(Campaign(options, folder, report).run())
        verdict, code = "chaos: passed", 0
    except BrokenPromiseError as broken:
        verdict = f"chaos: FAILED: {broken}"
    finally:
        if options.keep or code:
            print(f"the folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{report}\n{verdict}")
    return code


if __name__ == "__main__":
    sys.exit(main())
