"""Where several coordinators of one PostgreSQL server stop scaling, and what is full first: a calculation, not a run.

The workers, with a slot each, ask for so many answers a second, whatever the time of an answer allows. Four things have
to keep up:

    coordinators   the one core of each's event loop: a time for each prompt, and for each worker that it knows a share
                   of every second, since all look at all workers
    transactions   the one connection of each, which settles and leases: a time for each transaction, with its trips to
                   the server, and for each prompt of it; what ends meanwhile goes with the next one
    commits        the server's disk: an fsync for each transaction, which all coordinators that wait for one share
    server         all cores of the server: a time for each prompt, and for each worker that a coordinator knows a share
                   of every second

What is full first says why the cluster stops there. Near that, queues make answers wait: up to 80 % is enough here.

Taken for granted: answers come evenly, and always from a slot that has the next prompt already; a paper costs the
workers what it costs them, and the coordinators nothing; transactions wait for no lock, as `benchmarks.several` finds;
cores and disks are those of `measured.json`, whose figures are of small clusters, and grow in a straight line.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEASURED = Path(__file__).with_name("measured.json")
ENOUGH = 0.8
BATCH = 150
"""No transaction leases more."""

COORDINATORS = (1, 2, 4, 8, 16, 32, 64)
ANSWER_SECONDS = (1, 2, 5, 10, 20, 60)
PROMPTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, as told above: of CPU, but those of transactions and of the disk."""

    prompt: float
    worker: float
    server_prompt: float
    server_worker: float
    transaction: float
    transaction_prompt: float
    fsync: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Coordinators that all know all workers, and the cores of their server."""

    workers: int
    coordinators: int
    server_cores: int

    def shares(self, costs: Costs, rate: float) -> dict[str, float]:
        """Of what each of the four can do, how much so many answers a second take; more than 1 is too much."""
        each = rate / self.coordinators
        together = _together(costs, each)
        return {
            "coordinators": each * costs.prompt + self.workers * costs.worker,
            "transactions": each * (costs.transaction_prompt + costs.transaction / BATCH),
            "commits": each / together * costs.fsync,
            "server": (rate * costs.server_prompt + self.coordinators * self.workers * costs.server_worker)
            / self.server_cores,
        }

    def first(self, costs: Costs, rate: float) -> tuple[str, float]:
        """What is fullest at so many answers a second, and how full."""
        return max(self.shares(costs, rate).items(), key=lambda share: share[1])

    def most(self, costs: Costs) -> float:
        """The most answers a second with which nothing is too full; 0 if something is without any."""
        low, high = 0.0, 1e6
        while high - low > 0.01:
            middle = (low + high) / 2
            low, high = (low, middle) if self.first(costs, middle)[1] > ENOUGH else (middle, high)
        return low


def measured() -> Costs:
    """The costs that were measured."""
    return Costs(**json.loads(MEASURED.read_text(encoding="utf-8"))["costs"])


def lines(workers: int, server_cores: int, costs: Costs) -> Iterator[str]:
    """What a cluster can do with more and more coordinators, and how many it needs for answers of some times."""
    clusters = [Cluster(workers, number, server_cores) for number in COORDINATORS]
    yield f"{workers:,} workers, a server with {server_cores} cores"
    yield f"{'coordinators':>14}{'answers/s':>12}  full first"
    for cluster in clusters:
        most = cluster.most(costs)
        yield f"{cluster.coordinators:>14}{most:>12,.0f}  {cluster.first(costs, most)[0]}"
    yield ""
    yield f"{'answer':>8}{'answers/s':>12}{'coordinators':>14}{'full':>7}  {'full first':<14}{PROMPTS:,} prompts take"
    best = max(clusters, key=lambda cluster: cluster.most(costs))
    for seconds in ANSWER_SECONDS:
        wanted = workers / seconds
        enough = next((cluster for cluster in clusters if cluster.most(costs) >= wanted), best)
        rate = min(wanted, enough.most(costs))
        what, full = enough.first(costs, rate)
        took = f"{PROMPTS / rate / 3600:.1f} h" if rate else "for ever"
        short = "" if rate == wanted else f", {wanted / rate:.1f} x as long as the workers could" if rate else ""
        yield f"{seconds:>6} s{rate:>12,.0f}{enough.coordinators:>14}{full:>7.0%}  {what:<14}{took}{short}"


def _together(costs: Costs, rate: float) -> float:
    """How many prompts go with a transaction of a coordinator: what ends while the one before lasts."""
    left = 1 - rate * costs.transaction_prompt
    waiting = BATCH if left <= 0 else rate * costs.transaction / left
    return min(BATCH, max(1.0, waiting))
