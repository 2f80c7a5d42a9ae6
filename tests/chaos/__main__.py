"""`python -m tests.chaos`: see `--help`."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.campaign import Campaign
from tests.chaos.options import parse


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign, print its report, and return the exit code."""
    options = parse(arguments)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=options.folder)).resolve()
    campaign = Campaign(options, folder)
    verdict, code = "chaos: passed", 0
    try:
        asyncio.run(campaign.run())
    except BrokenPromiseError as broken:
        verdict, code = f"chaos: FAILED: {broken}", 1
    finally:
        if options.keep or code:
            print(f"\nthe folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{campaign.report}\n{verdict}")
    return code


if __name__ == "__main__":
    sys.exit(main())
