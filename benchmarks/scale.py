"""What the queue costs at ten thousand prompts and at a million: neither time nor memory may grow with the job.

    uv run --group test --extra parquet python -m benchmarks.scale
    uv run --group test --extra parquet python -m benchmarks.scale --sizes 10000,100000 --only turns,status
    uv run --group test python -m benchmarks.scale --db postgres --sizes 10000,1000000

For each size, a hundred questions are asked about as many papers as it takes:

    submit     files into a new database, as `distllm submit` stores them; of that, the writing of the prompts
    turns      a coordinator's transactions: fifty answers settled, fifty prompts leased; copies of one database,
               in turns, a process for each; p50 of the parts, p99 of the commit with its fsync and checkpoint
    status     what `distllm status` and `distllm status 1` ask the database
    work       the most memory of a whole coordinator that gets a thousand answers from a server on the loopback
    prune      the whole job is cancelled and pruned, while another one of the same database is worked beside it
    export     every format, a process for each, while another job of the same database is worked beside it; SQLite only
    restart    from the start of `distllm resume` to its first request, after a kill that left 10,000 leases
    commands   `distllm --help` and `distllm status`, start included, beside `python -c "import typer"`

Each size has processes of its own. The machine may drift, so what is compared is measured in turns, and only ratios
of one run mean anything. Ends with a table of what was found, and says which goals are met.
"""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.exporting import Exported, export, store_answers
from benchmarks.figures import (
    Figure,
    as_mb,
    as_ms,
    as_rate,
    as_s,
    at_least,
    at_most,
    megabytes_more,
    percentile,
    table,
    times,
)
from benchmarks.fresh import fresh, peak_bytes
from benchmarks.large_job import submit, write_papers
from benchmarks.places import SQLITE, Databases, add_db, as_option, open_databases
from benchmarks.processes import serving
from benchmarks.pruning import prune_beside
from benchmarks.queue_turns import BATCH, Turn, coordinating, writing_beside
from benchmarks.restart import die_holding, first_request
from benchmarks.stub import MODEL
from benchmarks.through_distllm import work
from distllm.cli.status import gather
from distllm.domain.events import Answered, Event
from distllm.domain.places import DatabasePlace
from distllm.export.formats import Format
from distllm.store.reads import open_reader

PARTS = ("submit", "turns", "status", "work", "prune", "export", "restart", "commands")
BLOCK = 10
RESTARTS = 3
ENOUGH_ANSWERS = 1000
WRITE_EVERY_SECONDS = 0.25
BESIDE_PAPERS, BESIDE_QUESTIONS = 1000, 100
MOST_LOG = 16 * 2**20


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=_sizes, default=[10_000, 100_000, 1_000_000], help="prompts (10000,100000,1000000)"
    )
    parser.add_argument("--questions", type=int, default=100, help="questions about a paper (100)")
    parser.add_argument("--only", type=_parts, metavar="PARTS", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=4, help="copies of each database that are worked (4)")
    parser.add_argument("--turns", type=int, default=180, help="transactions of each, fifty prompts a turn (180)")
    parser.add_argument("--leases", type=int, default=10_000, help="what the killed coordinator held (10000)")
    parser.add_argument("--runs", type=int, default=7, help="runs of each command, taken in turns (7)")
    add_db(parser)
    given = parser.parse_args()
    given.only = given.only or [part for part in PARTS if part != "export" or given.db == SQLITE]
    if min(given.questions, given.rounds, given.turns, given.leases, given.runs) < 1:
        parser.error("--questions, --rounds, --turns, --leases and --runs must be at least 1")
    if any(size % given.questions for size in given.sizes):
        parser.error(f"--sizes must be multiples of the {given.questions} --questions")
    if "turns" in given.only and (given.turns + 2) * BATCH > given.sizes[0]:
        parser.error(f"--turns {given.turns} takes {(given.turns + 2) * BATCH:,} prompts: more than the smallest size")
    if "export" in given.only and given.db != SQLITE:
        parser.error("export is measured with --db sqlite")
    if "export" in given.only and find_spec("pyarrow") is None:
        parser.error("pyarrow is not installed: run this with `uv run --group test --extra parquet`")
    # Clients that are killed are no news here.
    logging.disable()
    with tempfile.TemporaryDirectory() as folder, open_databases(given.db, Path(folder)) as databases:
        figures = Scale(Path(folder), databases, given).measure()
    print(f"{given.questions} questions a paper; {databases.said}, {os.cpu_count()} cores")
    print(table(given.sizes, figures))
    missed = [figure.what for figure in figures if figure.missed]
    print(f"missed: {', '.join(missed)}" if missed else "every goal is met")


class Scale:
    """The parts of one run. What one stores, the next ones use."""

    def __init__(self, folder: Path, databases: Databases, given: argparse.Namespace) -> None:
        self._folder = folder
        self._databases = databases
        self._given = given
        self._sizes: list[int] = given.sizes
        self._stored: dict[int, DatabasePlace] = {}
        self._papers: list[Path] = []
        self._figures: list[Figure] = []

    def measure(self) -> list[Figure]:
        """Measure what is wanted, part by part."""
        parts: dict[str, Callable[[], None]] = {
            "submit": self._submit,
            "turns": self._turns,
            "status": self._status,
            "work": self._work,
            "prune": self._prune,
            "export": self._export,
            "restart": self._restart,
            "commands": self._commands,
        }
        for name, part in parts.items():
            # All but the exports need the jobs that are submitted first.
            if name in self._given.only or (name == "submit" and set(self._given.only) - {"export"}):
                began = time.perf_counter()
                part()
                _say(f"{name}: {time.perf_counter() - began:.0f} s")
        return self._figures

    @contextmanager
    def _copy(self, size: int, name: str) -> Iterator[DatabasePlace]:
        """The stored job anew, in a database of its own."""
        copy = self._databases.copy(self._stored[size], f"{name}-{size}")
        yield copy
        self._databases.drop(copy)

    def _add(self, figure: Figure) -> None:
        self._figures.append(figure)
        _say("  ".join(figure.cells()))

    def _submit(self) -> None:
        questions = self._given.questions
        papers = self._papers = fresh(write_papers, self._folder / "papers", max(self._sizes) // questions)
        self._stored = {size: self._databases.new(f"stored-{size}") for size in self._sizes}
        done = [fresh(submit, self._stored[n], papers[: n // questions], questions, MODEL) for n in self._sizes]
        rates = [size / each.writing for size, each in zip(self._sizes, done, strict=True)]
        self._add(Figure("submit: files read and stored", [each.reading for each in done], as_s))
        self._add(Figure("submit: prompts written", rates, as_rate, at_least(100_000, "100,000/s")))
        self._add(Figure("submit: most memory", [each.peak for each in done], as_mb, megabytes_more(30)))
        sizes = [self._databases.size(place) for place in self._stored.values()]
        self._add(Figure("size of the database", sizes, as_mb))

    def _turns(self) -> None:
        found: dict[int, list[Turn]] = {size: [] for size in self._sizes}
        for number in range(self._given.rounds):
            with ExitStack() as stack:
                copies = {size: stack.enter_context(self._copy(size, "turns")) for size in self._sizes}
                hands = {size: stack.enter_context(coordinating(copies[size], MODEL)) for size in self._sizes}
                for hand in hands.values():
                    # The first have nothing to settle yet.
                    hand.turns(2)
                for turn in range(0, self._given.turns, BLOCK):
                    # Forwards and backwards, so that a machine that slows down favours nobody.
                    for size in self._sizes[:: -1 if turn // BLOCK % 2 else 1]:
                        found[size] += hands[size].turns(min(BLOCK, self._given.turns - turn))
            _say(f"turns: round {number + 1} of {self._given.rounds}")
        turns = list(found.values())
        for what, share, part, goal in (
            (f"lease of {BATCH}, p50", 0.5, "lease", times(1.3)),
            (f"settle of {BATCH}, p50", 0.5, "settle", times(1.3)),
            ("commit, p50", 0.5, "commit", None),
            ("commit, p99", 0.99, "commit", times(2)),
        ):
            values = [percentile([getattr(turn, part) for turn in each], share) for each in turns]
            self._add(Figure(what, values, as_ms, goal))
        logs = [max(turn.log for turn in each) for each in turns]
        if any(logs):
            self._add(Figure("longest write-ahead log", logs, as_mb, at_most(MOST_LOG, as_mb(MOST_LOG))))

    def _status(self) -> None:
        found = []
        for size in self._sizes:
            with self._copy(size, "status") as copy:
                found.append(fresh(_ask_status, copy))
        goal = at_most(0.005, "5 ms")
        self._add(Figure("query of `status`, p50", [all_jobs for all_jobs, _ in found], as_ms, goal))
        self._add(Figure("queries of `status 1`, p50", [one_job for _, one_job in found], as_ms, goal))

    def _work(self) -> None:
        peaks = []
        with serving("benchmarks.stub", "--slots", 50) as stub:
            for size in self._sizes:
                with self._copy(size, "work") as copy:
                    peaks.append(fresh(_work, copy, stub.port, min(ENOUGH_ANSWERS, size // 2)))
        self._add(Figure("coordinator: most memory", peaks, as_mb, megabytes_more(30)))

    def _prune(self) -> None:
        found = []
        for size in self._sizes:
            with self._copy(size, "prune") as copy:
                found.append(prune_beside(copy, self._papers[:BESIDE_PAPERS], BESIDE_QUESTIONS, WRITE_EVERY_SECONDS))
        self._add(Figure("prune: prompts", [each.prompts / each.seconds for each in found], as_rate))
        turns = [[turn.settle + turn.lease + turn.commit for turn in each.turns] for each in found]
        self._add(Figure("turn beside it, p50", [percentile(each, 0.5) for each in turns], as_ms, times(1.3)))
        self._add(Figure("turn beside it, p99", [percentile(each, 0.99) for each in turns], as_ms))

    def _export(self) -> None:
        found: dict[Format, list[Exported]] = {form: [] for form in Format}
        logs = []
        for size in self._sizes:
            path, questions = self._folder / f"answers-{size}.db", self._given.questions
            fresh(store_answers, path, size // questions, questions, MODEL)
            with writing_beside(path, MODEL, WRITE_EVERY_SECONDS) as turns:
                for form in Format:
                    target = self._folder / f"export.{form}"
                    found[form].append(fresh(export, path, form, target))
                    target.unlink()
                    _say(f"{form} of {size:,}: {found[form][-1].seconds:.1f} s")
            logs.append(max(turn.log for turn in turns))
            path.unlink()
        for form, each in found.items():
            rates = [size / one.seconds for size, one in zip(self._sizes, each, strict=True)]
            self._add(Figure(f"{form}: answers", rates, as_rate))
            self._add(Figure(f"{form}: most memory", [one.peak for one in each], as_mb, megabytes_more(50)))
        self._add(Figure("longest log during exports", logs, as_mb, at_most(MOST_LOG, as_mb(MOST_LOG))))

    def _restart(self) -> None:
        found: dict[bool, list[float]] = {False: [], True: []}
        for size in self._sizes:
            for killed, each in found.items():
                seconds = []
                for _ in range(RESTARTS):
                    with self._copy(size, "restart") as copy:
                        die_holding(copy, min(self._given.leases, size) if killed else 0)
                        seconds.append(asyncio.run(first_request(copy, self._folder)))
                each.append(median(seconds))
        self._add(Figure("`resume` to its first request", found[False], as_s))
        self._add(Figure("the same after a kill", found[True], as_s, at_most(1.0, "1 s")))
        more = [killed - fresh for fresh, killed in zip(*found.values(), strict=True)]
        self._add(Figure("of that, for the leases left", more, as_s))

    def _commands(self) -> None:
        distllm = str(Path(sys.executable).with_name("distllm"))
        bare = [sys.executable, "-c", "import typer"]
        commands = {"--help": [[distllm, "--help"]] * len(self._sizes)}
        commands["status"] = [[distllm, "--db", as_option(place), "status"] for place in self._stored.values()]
        for (name, each), most in zip(commands.items(), (1.3, 2.5), strict=True):
            ratios: list[list[float]] = [[] for _ in self._sizes]
            for _ in range(self._given.runs):
                for place, command in enumerate(each):
                    least = _seconds(bare)
                    ratios[place].append(_seconds(command) / least)
            values = [median(found) for found in ratios]
            self._add(
                Figure(f"`{name}` / `import typer`", values, lambda ratio: f"{ratio:.2f}", at_most(most, f"{most}"))
            )


def _ask_status(place: DatabasePlace) -> tuple[float, float]:
    """Seconds of what `distllm status` asks, and of what `distllm status 1` asks, once a few turns were taken."""
    with coordinating(place, MODEL) as hand:
        hand.turns(10)
        return asyncio.run(_time_status(place))


async def _time_status(place: DatabasePlace) -> tuple[float, float]:
    all_jobs, one_job = [], []
    async with open_reader(place) as reader:
        for _ in range(20):
            began = time.perf_counter()
            await reader.jobs()
            between = time.perf_counter()
            await gather(reader, 1)
            all_jobs.append(between - began)
            one_job.append(time.perf_counter() - between)
    return median(all_jobs), median(one_job)


def _work(place: DatabasePlace, port: int, enough: int) -> int:
    """The most memory of a process that works until it has enough answers."""
    answers = 0

    def hear(event: Event) -> None:
        nonlocal answers
        answers += isinstance(event, Answered)

    asyncio.run(work(place, [port], hear, lambda: answers >= enough))
    assert answers >= enough, answers
    return peak_bytes()


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _sizes(text: str) -> list[int]:
    sizes = sorted({int(size) for size in text.split(",")})
    if sizes[0] < 1:
        raise argparse.ArgumentTypeError("sizes must be at least 1")
    return sizes


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    return parts


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
