"""What the queue costs: distllm's durable dispatch beside a bare aiohttp loop, and beside LiteLLM's Router.

    uv run --group bench python -m benchmarks.dispatch
    uv run --group bench python -m benchmarks.dispatch --prompt-bytes 20000
    uv run --group bench python -m benchmarks.dispatch --answer-tokens 8
    uv run python -m benchmarks.dispatch --without-litellm --profile dispatch.prof
    uv run --group test python -m benchmarks.dispatch --without-litellm --db postgres

Two stub servers in processes of their own answer at once. The research preset's five questions are asked about
made-up papers: by distllm's own run, out of a database where the job is stored already, each answer committed with
synchronous=FULL; by tasks that take the same requests from a list and keep the answers in another; by as many tasks
that call LiteLLM's Router. All stream, and all keep their requests in flight at the same number. Each contender is a
process of its own, warmed up, and they take turns; only the ratio of neighbouring runs means anything. CPU time
counts all threads of the contender, and not the servers'. With `--db` distllm on PostgreSQL takes turns with them, each
answer committed with synchronous_commit; the CPU time of that server is counted too.

All but LiteLLM take a new connection for each request, since llama.cpp closes each with its answer without a word
(docs/decisions/0003); `--bare-keeps` lets the bare loop use those of the stub servers again, and shows what that costs
distllm. With `--close` the servers end connections too. `--profile` writes what cProfile saw of distllm's event loop in
one more run.
"""

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.places import SQLITE, Databases, Files, add_db, open_databases
from benchmarks.processes import require_litellm, serving
from benchmarks.prompts import Prompt, ask, prompts_of, research
from benchmarks.stub import MODEL
from benchmarks.through_distllm import store_job, work
from distllm.domain.places import DatabasePlace
from distllm.metrics import Metrics
from distllm.presets import render_system

SERVERS = 2
WARM_UP_PAPERS = 20
MAX_TOKENS = 100
BARE, DISTLLM, ON_POSTGRES, LITELLM = "bare aiohttp loop", "distllm", "distllm on PostgreSQL", "LiteLLM Router"


@dataclass(frozen=True, slots=True)
class Shelf:
    """A stored job: its database, which is copied for each run, and its prompts for those who have no database."""

    databases: Databases
    database: DatabasePlace
    prompts: list[Prompt]


class Timing(NamedTuple):
    """One run; `cpu` is that of the contender's process, and of its database's server."""

    prompts: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Prompts a second."""
        return self.prompts / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU time a prompt."""
        return 1000 * self.cpu / self.prompts


Contender = Callable[[Sequence[int], Shelf, int], Timing]
Part = tuple[Contender, Shelf, Shelf]
"""A contender, its job, and a small one to warm up with."""

_STATES = "SELECT state, count(*) AS prompts FROM prompts GROUP BY state"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.dispatch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt-bytes", type=int, default=1000, help="bytes of a system message (1000)")
    parser.add_argument("--prompts", type=int, default=2000, help="prompts of a run, five about a paper (2000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, taken in turns (5)")
    parser.add_argument("--in-flight", type=int, default=50, help="requests at a time (50)")
    parser.add_argument("--answer-tokens", type=int, default=100, help="tokens of an answer, each an event (100)")
    parser.add_argument("--close", action="store_true", help="servers end each connection with its answer")
    parser.add_argument("--bare-keeps", action="store_true", help="the bare loop uses connections again")
    parser.add_argument("--litellm-prompts", type=int, default=500, help="prompts of a run of LiteLLM (500)")
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="for `python -m pstats FILE`")
    add_db(parser)
    given = parser.parse_args()
    least = len(render_system("")) + 100
    if given.prompt_bytes < least:
        parser.error(f"--prompt-bytes must be at least {least}")
    if given.in_flight < SERVERS or given.in_flight % SERVERS:
        parser.error(f"--in-flight must be a multiple of the {SERVERS} servers")
    if min(given.prompts, given.runs, given.answer_tokens, given.litellm_prompts) < 1:
        parser.error("--prompts, --runs, --answer-tokens and --litellm-prompts must be at least 1")
    if not given.without_litellm:
        require_litellm(parser)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _say("storing the job…")
        files = Files(folder)
        shelf = _shelf(files, given.prompts, given.prompt_bytes)
        bare = run_bare_that_keeps if given.bare_keeps else run_bare
        warm_up = _warm_up(files, given.prompt_bytes)
        contenders: dict[str, Part] = {BARE: (bare, shelf, warm_up), DISTLLM: (run_distllm, shelf, warm_up)}
        if given.db != SQLITE:
            server = stack.enter_context(open_databases(given.db, folder))
            there = _shelf(server, given.prompts, given.prompt_bytes)
            contenders[ON_POSTGRES] = (run_distllm, there, _warm_up(server, given.prompt_bytes))
        if not given.without_litellm:
            short = replace(shelf, prompts=shelf.prompts[: given.litellm_prompts])
            contenders[LITELLM] = (run_litellm, short, warm_up)
        options: list[object] = ["--slots", given.in_flight // SERVERS, "--answer-tokens", given.answer_tokens]
        options += ["--close"] * given.close
        ports = [stack.enter_context(serving("benchmarks.stub", *options)).port for _ in range(SERVERS)]
        found = _measure(contenders, ports, given.in_flight, given.runs)
        if given.profile is not None:
            profile(ports, contenders.get(ON_POSTGRES, contenders[DISTLLM])[1], given.in_flight, given.profile)
    size = sum(map(len, shelf.prompts[0]))
    closing_ = ", a connection for each answer" if given.close else ""
    print(f"{len(shelf.prompts):,} prompts of {size:,} bytes, answers of {given.answer_tokens} tokens{closing_}")
    print(f"{given.in_flight} in flight on {SERVERS} stub servers, {given.runs} runs in turns: median (min, max)")
    for name, timings in found.items():
        rates, cpu = [each.rate for each in timings], [each.cpu_ms for each in timings]
        print(f"{name:>21}: {_spread(rates, 0)} prompts/s, {_spread(cpu, 2)} ms of CPU a prompt")
    for one, other in ((DISTLLM, BARE), (ON_POSTGRES, BARE), (ON_POSTGRES, DISTLLM), (DISTLLM, LITELLM)):
        if one in found and other in found:
            pairs = list(zip(found[one], found[other], strict=True))
            rates = [mine.rate / its.rate for mine, its in pairs]
            cpu = [its.cpu_ms / mine.cpu_ms for mine, its in pairs]
            print(f"{one} / {other}: {_spread(rates, 2)} in prompts/s; {_spread(cpu, 2)} in prompts per CPU second")


def run_bare(ports: Sequence[int], shelf: Shelf, in_flight: int) -> Timing:
    """The bare loop."""
    return _run_bare(ports, shelf, in_flight, keep=False)


def run_bare_that_keeps(ports: Sequence[int], shelf: Shelf, in_flight: int) -> Timing:
    """The bare loop, on connections that are used again."""
    return _run_bare(ports, shelf, in_flight, keep=True)


def _run_bare(ports: Sequence[int], shelf: Shelf, in_flight: int, *, keep: bool) -> Timing:
    from benchmarks.bare_loop import ask_all

    cpu = time.process_time()
    seconds = asyncio.run(ask_all(ports, shelf.prompts, in_flight, MODEL, MAX_TOKENS, keep=keep))
    return Timing(len(shelf.prompts), seconds, time.process_time() - cpu)


def run_litellm(ports: Sequence[int], shelf: Shelf, in_flight: int) -> Timing:
    """LiteLLM's Router, called by as many tasks."""
    from benchmarks.litellm_router import ask_all, document_first

    requests = [document_first(prompt) for prompt in shelf.prompts]
    cpu = time.process_time()
    seconds = asyncio.run(ask_all(ports, requests, in_flight, MODEL, MAX_TOKENS))
    return Timing(len(shelf.prompts), seconds, time.process_time() - cpu)


def run_distllm(ports: Sequence[int], shelf: Shelf, in_flight: int) -> Timing:
    """distllm on a copy of the database; the servers tell it their slots, which are all that is in flight."""
    copy = shelf.databases.copy(shelf.database, "run")
    try:
        metrics = Metrics()
        cpu = time.process_time() + shelf.databases.cpu_seconds()
        seconds = asyncio.run(work(copy, ports, metrics.observe))
        cpu = time.process_time() + shelf.databases.cpu_seconds() - cpu
        states = {row["state"]: row["prompts"] for row in ask(copy, _STATES)}
        [attempts] = ask(copy, "SELECT count(*) AS attempts FROM attempts")
    finally:
        shelf.databases.drop(copy)
    assert states == {"done": len(shelf.prompts)}, states
    assert attempts == {"attempts": len(shelf.prompts)}, attempts
    return Timing(len(shelf.prompts), seconds, cpu)


def profile(ports: Sequence[int], shelf: Shelf, in_flight: int, file: Path) -> None:
    """Write where distllm's event loop spends its time; the writer's thread is not in it."""
    run_distllm(ports, shelf, in_flight)
    with cProfile.Profile() as profiler:
        run_distllm(ports, shelf, in_flight)
    profiler.dump_stats(file)
    _say(f"see: python -m pstats {file}")


def _shelf(databases: Databases, prompts: int, system_bytes: int, name: str = "job") -> Shelf:
    preset, database = research(), databases.new(name)
    papers = max(1, prompts // len(preset.templates))
    asyncio.run(store_job(database, preset, papers, system_bytes - len(render_system("")), MODEL, MAX_TOKENS))
    return Shelf(databases, database, prompts_of(database, preset.templates))


def _warm_up(databases: Databases, system_bytes: int) -> Shelf:
    return _shelf(databases, WARM_UP_PAPERS * len(research().templates), system_bytes, "warm-up")


def _measure(
    contenders: Mapping[str, Part], ports: Sequence[int], in_flight: int, runs: int
) -> dict[str, list[Timing]]:
    found: dict[str, list[Timing]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        hands = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for name in contenders}
        for name, (contender, _, warm_up) in contenders.items():
            _say(f"warming up: {name}")
            hands[name].submit(contender, ports, warm_up, in_flight).result()
        for run in range(runs):
            # Forwards and backwards, so that a machine that slows down favours nobody.
            for name in list(contenders)[:: -1 if run % 2 else 1]:
                contender, shelf, _ = contenders[name]
                before = answers_of(ports)
                found[name].append(hands[name].submit(contender, ports, shelf, in_flight).result())
                asked = answers_of(ports) - before
                assert asked == len(shelf.prompts), f"{name} asked {asked} prompts, not {len(shelf.prompts)}"
                _say(f"run {run + 1} of {runs}: {name}: {found[name][-1].rate:,.0f} prompts/s")
    return found


def answers_of(ports: Sequence[int]) -> int:
    """How many prompts the servers have answered so far."""
    total = 0
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as response:
            total += json.load(response)["answers"]
    return total


def _spread(values: Sequence[float], digits: int) -> str:
    middle, least, most = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least}, {most})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
