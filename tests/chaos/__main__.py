"""`python -m tests.chaos`: see `--help`."""

import asyncio
import shutil
import signal
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
        asyncio.run(_run(Campaign(options, folder, report)))
        verdict, code = "chaos: passed", 0
    except BrokenPromiseError as broken:
        verdict = f"chaos: FAILED: {broken}"
    except (asyncio.CancelledError, KeyboardInterrupt):
        verdict = "chaos: FAILED: it was stopped"
    finally:
        if options.keep or code:
            print(f"the folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{report}\n{verdict}")
    return code


async def _run(campaign: Campaign) -> None:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does: what was started is ended, too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await campaign.run()


if __name__ == "__main__":
    sys.exit(main())
