"""What is simulated: fleets, what they have to do, and what goes wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from benchmarks.fleet.least import least
from benchmarks.fleet.product import Product
from benchmarks.fleet.servers import Server
from benchmarks.fleet.simple import POLICIES as SIMPLE
from benchmarks.fleet.simple import Simple
from benchmarks.fleet.simulation import Simulation
from benchmarks.fleet.work import made_up_rates, papers, recorded_rates, troubles

POLICIES = (*SIMPLE, "weighted", "product")


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table: a fleet, what it has to do, and how many runs are made."""

    workers: int
    papers: int
    seeds: int
    policies: tuple[str, ...] = POLICIES
    prompts: int = 5
    spread: float = 10.0
    recorded: bool = False
    troubles: bool = False
    slots: int = 1
    gain: float = 0.0
    keeps: int | None = 0

    def __str__(self) -> str:
        told = [f"{self.workers:,} workers, {self.papers:,} papers"]
        told += ["recorded rates"] * self.recorded + ["troubles"] * self.troubles
        told += [f"{self.slots} slots of +{self.gain:.0%}"] * (self.slots > 1)
        told += ["no cache"] if self.keeps is None else [f"{self.keeps} more papers cached"] * bool(self.keeps)
        return ", ".join(told)


def run(case: Case, policy: str, seed: int) -> float:
    """The time that one run took, as a share of the least."""
    rng = Random(seed)
    rates = recorded_rates(rng, case.workers) if case.recorded else made_up_rates(rng, case.workers, case.spread)
    servers = [Server(number, *each, case.slots, case.gain, case.keeps) for number, each in enumerate(rates)]
    tasks = papers(rng, case.papers, case.prompts)
    scale = bound = least(servers, tasks, (), 1.0)
    unlucky = troubles(rng, case.workers) if case.troubles else []
    if unlucky:
        bound = least(servers, tasks, unlucky, scale)
    simulation = Simulation(servers, rng.uniform)
    dispatcher: Simple | Product
    if policy in SIMPLE:
        dispatcher = Simple(policy, simulation, tasks, rng)
    else:
        dispatcher = Product("affinity" if policy == "product" else policy, simulation, tasks, rng)
    simulation.suffer(unlucky, scale, dispatcher)
    if isinstance(dispatcher, Product):
        dispatcher.watch(sorted({each.worker for each in unlucky}))
    return simulation.run(dispatcher) / bound


def usual(seeds: int) -> Iterator[Case]:
    """Eight workers, and what may be different about them."""
    base = Case(8, 200, seeds)
    yield base
    yield replace(base, papers=24)
    yield replace(base, recorded=True)
    yield replace(base, troubles=True)
    yield replace(base, papers=24, troubles=True)
    yield replace(base, keeps=None)
    yield replace(base, keeps=8)
    yield replace(base, slots=4, gain=0.12)
    yield replace(base, slots=4, gain=0.5)


def table(seeds: int) -> Iterator[Case]:
    """The usual, and fleets of other sizes."""
    yield from usual(seeds)
    yield Case(2, 50, seeds)
    yield Case(2, 6, seeds)
    yield Case(32, 800, max(1, seeds // 4))
    yield Case(32, 96, max(1, seeds // 4))
    yield Case(32, 800, max(1, seeds // 4), troubles=True)
    yield Case(100, 2_500, max(1, seeds // 12))
    yield Case(100, 300, max(1, seeds // 12))
    yield Case(1_000, 200_000, 1, policies=("prompts", "papers", "longest", "product"))
