"""`python -m tests.cluster`: see `--help`."""

import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError
from tests.cluster.options import parse
from tests.cluster.report import Report
from tests.cluster.run import Run
from tests.postgres_server import OLDEST, programs


def main(arguments: list[str] | None = None) -> int:
    """Run, print the report, and return the exit code."""
    options = parse(arguments)
    if programs() is None:
        sys.exit(f"PostgreSQL {OLDEST} or newer is not installed")
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=options.folder)).resolve()
    report = Report(options)
    # Servers say much of connections that are reset on purpose.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    verdict, code = "cluster: FAILED: the driver itself broke", 1
    try:
        asyncio.run(_run(Run(options, folder, report)))
        verdict, code = "cluster: passed", 0
    except BrokenPromiseError as broken:
        verdict = f"cluster: FAILED: {broken}"
    except (asyncio.CancelledError, KeyboardInterrupt):
        verdict = "cluster: FAILED: it was stopped"
    finally:
        if options.keep or code:
            print(f"the folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{report}\n{verdict}")
    return code


async def _run(run: Run) -> None:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does: what was started is ended, too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await run.run()


if __name__ == "__main__":
    sys.exit(main())
