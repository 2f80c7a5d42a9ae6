"""How long a fleet of uneven workers takes, by policy, beside the least that it can take: a simulation.

    uv run python -m benchmarks.fleet                      # eight workers, half a minute
    uv run python -m benchmarks.fleet --table              # from 2 to 1,000 workers, up to a million prompts; minutes
    uv run python -m benchmarks.fleet --workers 32 --papers 800 --rates recorded --troubles --slots 4 --gain 0.12
    uv run python -m benchmarks.fleet --cluster --workers 1000          # what several coordinators can keep up with

Papers are 4,000 to 40,000 tokens long (log-normal), with five prompts each. Workers are 1 to 10 times as fast as the
slowest (log-uniform: 100 tokens read and 5 written a second for each unit of speed), or real machines, as recorded in
`recorded.json`. Each step takes up to 15 % more or less than it should. Nobody knows the length of an answer before it
is written, nor how fast a worker is before it has answered.

    prompts    each prompt to a worker at random, by its true speed; the paper is read again wherever it goes
    papers     each paper to a worker at random, by its true speed, from the start
    longest    a free worker takes the longest paper
    pull       a free worker takes the next paper
    weighted   distllm's policy `weighted`: each free seat takes a prompt, at random by weight
    product    what distllm does

`weighted` and `product` are distllm's own stations, breakers, rates, policies and placing; only the servers, the
database and the clock are made up. With `--troubles` half of the workers have one: they die, hang, slow down to a third
or join late. The simple policies know at once who is up; distllm has to find out. The least is all work spread over all
the speed that there is at the time, with each paper read once and cut wherever that helps.

`--cluster` simulates nothing: it calculates from measured costs where several coordinators of one PostgreSQL server
stop scaling, and why (see `cluster.py` for what it takes for granted).
"""

import argparse
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product, repeat
from statistics import median

from benchmarks.fleet.cases import POLICIES, Case, run, table, usual
from benchmarks.fleet.cluster import lines, measured

CACHES = {"last": 0, "none": None}


def show(cases: Sequence[Case], policies: Sequence[str], jobs: int) -> None:
    """Run all, and print a line for each case as soon as it is done."""
    print("time / least: median (worst) of the runs\n")
    width = max(len(str(case)) for case in cases)
    print(f"{'':<{width}} {'runs':>5}" + "".join(f"{policy:>15}" for policy in policies), flush=True)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for case in cases:
            chosen = [policy for policy in policies if policy in case.policies]
            runs = list(product(chosen, range(case.seeds)))
            found = list(pool.map(run, repeat(case), *zip(*runs, strict=True)))
            cells = []
            for policy in policies:
                times = [time for (each, _), time in zip(runs, found, strict=True) if each == policy]
                cells.append(f"{median(times):.3f} ({max(times):.2f})" if times else "-")
            print(f"{case!s:<{width}} {case.seeds:>5}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="all sizes")
    parser.add_argument("--cluster", action="store_true", help="several coordinators, and their PostgreSQL server")
    parser.add_argument("--server-cores", type=int, default=4, help="of --cluster (4)")
    parser.add_argument("--workers", type=int, help="one case of your own: how many workers (8; of --cluster 1000)")
    parser.add_argument("--papers", type=int, help="one case of your own: how many papers (200)")
    parser.add_argument("--prompts", type=int, default=5, help="prompts about each paper (5)")
    parser.add_argument("--spread", type=float, default=10.0, help="the fastest is so many times the slowest (10)")
    parser.add_argument("--rates", choices=("made-up", "recorded"), default="made-up", help="made-up")
    parser.add_argument("--troubles", action="store_true", help="workers die, hang, slow down and join late")
    parser.add_argument("--slots", type=int, default=1, help="requests that a worker answers at a time (1)")
    parser.add_argument("--gain", type=float, default=0.12, help="what each more writes of one alone (0.12, as CPUs)")
    parser.add_argument("--cache", default="last", help="none, last, or how many papers more a worker keeps (last)")
    parser.add_argument("--seeds", type=int, default=12, help="runs of each, fewer for large fleets (12)")
    parser.add_argument("--policies", default=",".join(POLICIES), help="some of " + ", ".join(POLICIES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (as many as cores)")
    given = parser.parse_args(arguments)
    chosen = given.policies.split(",")
    strange = sorted(set(chosen) - set(POLICIES))
    if strange:
        parser.error(f"--policies: no such policy: {', '.join(strange)}; there are {', '.join(POLICIES)}")
    if given.cache not in CACHES and not given.cache.isdecimal():
        parser.error(f"--cache: {given.cache!r} is neither none nor last nor a number")
    for name in ("workers", "papers", "prompts", "slots", "seeds", "jobs", "server_cores"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    if given.spread < 1:
        parser.error("--spread must be 1 or more")
    if given.cluster:
        print("\n".join(lines(given.workers or 1000, given.server_cores, measured())))
        return
    if given.table:
        cases = list(table(given.seeds))
    elif given.workers is None and given.papers is None:
        cases = list(usual(given.seeds))
    else:
        cases = [Case(given.workers or 8, given.papers or 200, given.seeds)]
        cases = [
            replace(
                cases[0],
                prompts=given.prompts,
                spread=given.spread,
                recorded=given.rates == "recorded",
                troubles=given.troubles,
                slots=given.slots,
                gain=given.gain if given.slots > 1 else 0.0,
                keeps=CACHES[given.cache] if given.cache in CACHES else int(given.cache),
            )
        ]
    show(cases, chosen, given.jobs)


if __name__ == "__main__":
    main()
