"""What the queue costs as it grows: each step on jobs of several sizes, a fresh process a size.

    uv run python -m benchmarks.scale
    uv run python -m benchmarks.scale --sizes 10000,100000 --without-export

A job of so many prompts, a hundred about each document, is stored; fifty prompts are leased and fifty answers settled,
round by round, each with a commit (synchronous=FULL); the query behind `distllm status` is run, and `distllm status`
and `distllm --help` themselves beside `python -c 'import typer'`; then every prompt is given an answer, and the job is
exported in each format, while another process goes on writing. All by distllm's own store and commands. Ratios are
those of the largest size to the smallest.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.at_size import Steps, answer_all, look, submit, work
from distllm.store.sqlite import open_for_writing

MEGABYTE = 2**20
FORMATS = ("jsonl", "csv", "markdown", "html", "parquet")
DISTLLM = Path(sys.executable).with_name("distllm")
TYPER = [sys.executable, "-c", "import typer"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Export:
    """One export: seconds, the most memory in bytes, and the longest that the write-ahead log was meanwhile."""

    seconds: float
    memory: int
    log: int


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured at one size; times are seconds, memory and files are bytes."""

    prompts: int
    documents_seconds: float
    submit_seconds: float
    submit_memory: int
    steps: Steps
    work_memory: int
    look: list[float]
    status: tuple[float, float]
    file: int
    exports: dict[str, Export]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000", help="prompts, with commas (10000,100000,1000000)")
    parser.add_argument("--rounds", type=int, default=150, help="leases and settlements of fifty (150)")
    parser.add_argument("--runs", type=int, default=9, help="starts of each command, in turns (9)")
    parser.add_argument("--without-export", action="store_true")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    if min(sizes) < 50 * given.rounds or given.rounds < 1:
        parser.error(f"the smallest size must be at least 50 times the {given.rounds} rounds")
    formats = [] if given.without_export else [form for form in FORMATS if form != "parquet" or find_spec("pyarrow")]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            found.append(measure(Path(folder) / f"{size}.db", size, given.rounds, given.runs, formats))
        typer, helped = in_turns([TYPER, [str(DISTLLM), "--help"]], given.runs)
    show(found, helped / typer)


def measure(path: Path, prompts: int, rounds: int, runs: int, formats: Sequence[str]) -> Found:
    """All steps on a job of so many prompts."""
    _say(f"{prompts:,} prompts: submit")
    documents_seconds, submit_seconds, submit_memory = apart(submit, path, prompts)
    _say(f"{prompts:,} prompts: lease and settle")
    steps, work_memory = apart(work, path, rounds)
    seconds = apart(look, path, 50)
    status = in_turns([TYPER, [str(DISTLLM), "--db", str(path), "status", "1"]], runs)
    exports = {}
    if formats:
        _say(f"{prompts:,} prompts: answers for all of them")
        apart(answer_all, path)
        for form in formats:
            _say(f"{prompts:,} prompts: export as {form}")
            exports[form] = export(path, form)
    size = path.stat().st_size
    return Found(
        prompts,
        documents_seconds,
        submit_seconds,
        submit_memory,
        steps,
        work_memory,
        seconds,
        (status[0], status[1]),
        size,
        exports,
    )


def apart(step: Callable[..., T], *values: Any) -> T:
    """Run a step in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(step, *values).result()


def in_turns(commands: Sequence[Sequence[str]], runs: int) -> list[float]:
    """Start commands in turns; the median seconds of each, start included."""
    seconds: list[list[float]] = [[] for _ in commands]
    for _ in range(runs):
        for command, took in zip(commands, seconds, strict=True):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            took.append(time.perf_counter() - began)
    return [median(took) for took in seconds]


def export(path: Path, form: str) -> Export:
    """Export the job while something else is written again and again."""
    target = path.with_suffix(f".{form}")
    command = [str(DISTLLM), "--db", str(path), "export", "1", "--format", form, "-o", str(target)]
    ended = threading.Event()
    longest = [0]
    writing = threading.Thread(target=_go_on_writing, args=(path, ended, longest))
    writing.start()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    ended.set()
    writing.join()
    if status:
        raise SystemExit(f"`{' '.join(command)}` failed")
    target.unlink()
    return Export(seconds, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024), longest[0])


def _go_on_writing(path: Path, ended: threading.Event, longest: list[int]) -> None:
    """Commit something now and then, and note how long the log becomes."""
    log = path.with_name(f"{path.name}-wal")
    with closing(open_for_writing(path)) as connection:
        while not ended.wait(0.02):
            connection.execute(
                "UPDATE prompts SET tokens = tokens WHERE id % 1000 = abs(random()) % 1000 AND id < 20000"
            )
            longest[0] = max(longest[0], log.stat().st_size)


def show(found: Sequence[Found], help_ratio: float) -> None:
    """Print what was found."""
    print(f"{'prompts':<44}" + "".join(f"{each.prompts:>14,}" for each in found) + f"{'ratio':>9}{'goal':>12}")
    _line("documents stored, seconds", found, lambda each: each.documents_seconds, digits=1)
    rates = [each.prompts / each.submit_seconds for each in found]
    _row("prompts stored a second", rates, f"{rates[-1]:,.0f}", "≥ 100,000", digits=0)
    _line("lease of 50, p50 ms", found, lambda each: 1000 * median(each.steps.lease), goal="≤ 1.3")
    _line("settle of 50, p50 ms", found, lambda each: 1000 * median(each.steps.settle), goal="≤ 1.3")
    _line("commit, p50 ms", found, lambda each: 1000 * median(each.steps.commit))
    _line("commit, p99 ms", found, lambda each: 1000 * _high(each.steps.commit), goal="≤ 2")
    _line("longest log, MB", found, lambda each: each.steps.log / MEGABYTE, digits=1)
    _line("query behind status, p50 ms", found, lambda each: 1000 * median(each.look), goal="≤ 5 ms")
    _line("`distllm status` / `import typer`", found, lambda each: each.status[1] / each.status[0], goal="≤ 2.5 each")
    _more("memory to submit, MB", found, lambda each: each.submit_memory, "≤ +30")
    _more("memory to lease and settle, MB", found, lambda each: each.work_memory, "≤ +30")
    _line("file, MB", found, lambda each: each.file / MEGABYTE, digits=0)
    for form in found[0].exports:
        _line(f"export as {form}, seconds", found, lambda each, form=form: each.exports[form].seconds, digits=1)  # type: ignore[misc]
        _more("  memory, MB", found, lambda each, form=form: each.exports[form].memory, "≤ +50")  # type: ignore[misc]
        _line("  longest log, MB", found, lambda each, form=form: each.exports[form].log / MEGABYTE, digits=1)  # type: ignore[misc]
    print(f"`distllm --help` / `import typer`: {help_ratio:.2f} (goal ≤ 1.3)")


def _line(
    name: str, found: Sequence[Found], figure: Callable[[Found], float], *, goal: str = "", digits: int = 2
) -> None:
    values = [figure(each) for each in found]
    _row(name, values, f"{values[-1] / values[0]:.2f}" if values[0] else "", goal, digits=digits)


def _more(name: str, found: Sequence[Found], figure: Callable[[Found], float], goal: str) -> None:
    values = [figure(each) / MEGABYTE for each in found]
    _row(name, values, f"{values[-1] - values[0]:+.1f}", goal, digits=1)


def _row(name: str, values: Sequence[float], compared: str, goal: str, *, digits: int) -> None:
    print(f"{name:<44}" + "".join(f"{value:>14,.{digits}f}" for value in values) + f"{compared:>9}{goal:>12}")


def _high(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
