"""From the command line of a campaign to its report and its exit code."""

import argparse
import asyncio
import shutil
import signal
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError


def make_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser of `python -m tests.NAME` with the options that every campaign has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.{name}",
        description=description,
        epilog=textwrap.dedent(epilog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="decides the sequence of faults (1)")
    parser.add_argument("--folder", type=Path, help="work here instead of in a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the folder as it is")
    return parser


def drive(
    name: str,
    within: Path | None,
    campaign: Callable[[Path], Coroutine[None, None, None]],
    report: object,
    *,
    keep: bool,
) -> int:
    """Run a campaign in a folder of its own, print its report, and return the exit code."""
    if within is not None:
        within.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=within)).resolve()
    verdict, code = "FAILED: the driver itself broke", 1
    try:
        asyncio.run(_run(campaign(folder)))
        verdict, code = "passed", 0
    except BrokenPromiseError as broken:
        verdict = f"FAILED: {broken}"
    except (asyncio.CancelledError, KeyboardInterrupt):
        verdict = "FAILED: it was stopped"
    finally:
        if keep or code:
            print(f"the folder is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{report}\n{name}: {verdict}")
    return code


async def _run(campaign: Coroutine[None, None, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does: what was started is ended, too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await campaign


def counted(what: Counter[str]) -> str:
    """What was counted, each with its number."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(what.items())) or "none"


def listed(lines: dict[str, str]) -> str:
    """A line for each name, with what is said of it below that of the others."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
