"""Policies: from the seats that want work to what each should ask for, in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from distllm.balancer.weights import shuffled
from distllm.domain.errors import DistllmError
from distllm.domain.models import Ask
from distllm.plugins import load

GROUP = "distllm.policies"

LONGEST_GROUP = 32
"""How many prompts of one reading a seat leases at a time."""

PATIENCE_SECONDS = 15.0
"""How long a prompt waits for another worker than the one that failed it, where there is another."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One worker as a policy sees it.

    `name` is the one it is configured under. `windows` are the models it serves, by the names that jobs use,
    with their context windows in tokens. `weight` is what `weigh` makes of it, times the worker's own weight.
    `seats` has an entry for each seat that wants work: the reading it has in its cache, or None. A machine
    without one is listed too: it counts as another worker.
    """

    worker_id: int
    windows: Mapping[str, int]
    weight: float
    seats: tuple[int | None, ...]
    name: str = ""


class Policy(Protocol):
    """What a package offers through the entry-point group `distllm.policies`; made by calling it without arguments."""

    def plan(self, machines: Sequence[Machine], rng: Random) -> list[Ask]:
        """At most one Ask for each seat, the first to be served first."""
        ...


class Affinity:
    """A reading stays on one seat until nothing of it is left: a paper is read once."""

    def plan(self, machines: Sequence[Machine], rng: Random) -> list[Ask]:
        """Seats go on with their readings first; new readings go to workers at random by weight."""
        patience = _patience(machines)
        asks = [
            Ask(machine.worker_id, machine.windows, LONGEST_GROUP, reading=reading, patience=patience)
            for machine in machines
            for reading in machine.seats
        ]
        weights = [machine.weight for machine in machines for _ in machine.seats]
        return sorted(shuffled(asks, weights, rng), key=lambda ask: ask.reading is None)


class Weighted:
    """Every prompt to a worker chosen at random by weight, whatever has been read where."""

    def plan(self, machines: Sequence[Machine], rng: Random) -> list[Ask]:
        """One prompt for each seat; when prompts are few, the heavier workers get them."""
        asks = [
            Ask(machine.worker_id, machine.windows, limit=1, shared=True, patience=_patience(machines))
            for machine in machines
            for _ in machine.seats
        ]
        return shuffled(asks, [machine.weight for machine in machines for _ in machine.seats], rng)


def _patience(machines: Sequence[Machine]) -> float:
    return PATIENCE_SECONDS if len(machines) > 1 else 0.0


POLICIES: Mapping[str, type[Policy]] = {"affinity": Affinity, "weighted": Weighted}


def make_policy(name: str) -> Policy:
    """The policy called `name`: one of `POLICIES`, else what an installed package offers.

    Raises DistllmError if that cannot be imported or made.
    """
    if name in POLICIES:
        return POLICIES[name]()
    offered = load(GROUP, name)
    try:
        policy: Policy = offered()
    except Exception as error:
        raise DistllmError(f"the policy {name!r} cannot be made ({type(error).__name__}: {error})") from error
    if not callable(getattr(policy, "plan", None)):
        raise DistllmError(f"the policy {name!r} has no method `plan`: see docs/extending.md")
    return policy
