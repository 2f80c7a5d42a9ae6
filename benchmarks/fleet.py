"""How long a fleet of uneven workers takes, by policy, beside the least that it can take: a simulation.

    uv run python -m benchmarks.fleet
    uv run python -m benchmarks.fleet --workers 1000 --papers 200000 --seeds 1 --policies longest,together,product

Papers are 4,000 to 40,000 tokens long (log-normal), with five prompts each; workers are 1 to 10 times as fast as the
slowest (log-uniform), read 100 tokens and write 5 for each unit of speed, and keep the paper that they read last. Each
step takes up to 15 % more or less than it should, and nobody knows the length of an answer before it is written.

    prompts    each prompt to a worker at random, by weight; the paper is read again wherever it goes
    papers     each paper to a worker at random, by weight, from the start
    pull       a free worker takes the next paper
    longest    a free worker takes the longest paper
    together   a free worker takes the longest paper that fits the projected end
    product    the same, and idle workers take prompts from those that would end last: what distllm does

`together` and `product` decide by distllm's own `balancer.placement`. The least is all work spread over all speed,
with each paper read once.
"""

import argparse
import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from random import Random
from statistics import median

from distllm.balancer.placement import Busy, Pace, Place, best_help, longest_in_time, overdue
from distllm.domain.models import Paper
from distllm.store.backlog import MOST_PROMPTS

POLICIES = ("prompts", "papers", "pull", "longest", "together", "product")
QUESTION, NOISE, PREFILL, DECODE = 40.0, 0.15, 100.0, 5.0


@dataclass(slots=True)
class Task:
    """One paper: its tokens, and the lengths of the answers to its prompts."""

    tokens: int
    answers: list[float]

    def paper(self) -> Paper:
        return Paper(self.tokens, len(self.answers), self.tokens)


@dataclass(slots=True)
class Machine:
    """A worker with one seat, and what it has taken."""

    number: int
    speed: float
    cached: Task | None = None
    task: Task | None = None
    answers: deque[float] = field(default_factory=deque)
    own: deque[Task] = field(default_factory=deque)
    began: float = 0.0
    expected: float = 0.0
    busy: bool = False

    def pace(self, answer: float) -> Pace:
        return Pace(PREFILL * self.speed, DECODE * self.speed, QUESTION, answer)


class Fleet:
    """One run of one policy."""

    def __init__(self, policy: str, seed: int, workers: int, papers: int, prompts: int, spread: float) -> None:
        self.policy = policy
        self.rng = rng = Random(seed)
        self.machines = [Machine(n, math.exp(rng.uniform(0, math.log(spread)))) for n in range(workers)]
        tasks = [
            Task(
                round(min(40_000, max(4_000, math.exp(rng.gauss(math.log(12_000), 0.6))))),
                [max(20.0, rng.gauss(200, 60)) for _ in range(prompts)],
            )
            for _ in range(papers)
        ]
        work = sum(each.tokens / PREFILL + sum(QUESTION / PREFILL + a / DECODE for a in each.answers) for each in tasks)
        self.least = work / sum(machine.speed for machine in self.machines)
        self.now = 0.0
        self.events: list[tuple[float, int]] = []
        self.written: deque[float] = deque(maxlen=200)
        self.papers = deque(tasks if policy == "pull" else sorted(tasks, key=lambda each: -each.tokens))
        if policy in ("prompts", "papers"):
            self._deal(tasks)

    def run(self) -> float:
        """The time until the last answer, as a share of the least."""
        self._feed()
        while self.events:
            self.now, number = heapq.heappop(self.events)
            machine = self.machines[number]
            self.written.append(machine.answers.popleft())
            machine.busy = False
            if machine.answers:
                self._begin(machine)
            else:
                machine.task = None
            self._feed()
        return self.now / self.least

    def _deal(self, tasks: list[Task]) -> None:
        weights = [machine.speed for machine in self.machines]
        for task in tasks:
            pieces = [Task(task.tokens, [each]) for each in task.answers] if self.policy == "prompts" else [task]
            for piece in pieces:
                self.rng.choices(self.machines, weights)[0].own.append(piece)
        self.papers.clear()

    @property
    def answer(self) -> float:
        """The mean length of the answers so far."""
        return sum(self.written) / len(self.written) if self.written else 200.0

    def _feed(self) -> None:
        idle = [machine for machine in self.machines if not machine.busy]
        for machine in sorted(idle, key=lambda each: -each.speed):
            task = machine.own.popleft() if machine.own else self._next(machine)
            if task is not None:
                machine.task, machine.answers = task, deque(task.answers)
                self._begin(machine)
        if self.policy == "product":
            while self._help():
                pass

    def _next(self, machine: Machine) -> Task | None:
        if not self.papers:
            return None
        few = (
            sum(len(task.answers) for task in self.papers) <= MOST_PROMPTS if len(self.papers) < MOST_PROMPTS else False
        )
        if self.policy not in ("together", "product") or not few:
            return self.papers.popleft()
        bound = longest_in_time(self._places(), [task.paper() for task in self.papers])[machine.number]
        found = next((place for place, task in enumerate(self.papers) if task.tokens <= bound), None)
        if found is None:
            return None
        task = self.papers[found]
        del self.papers[found]
        return task

    def _places(self) -> list[Place]:
        answer = self.answer
        return [
            Place(machine.number, machine.pace(answer), self._free_in(machine, answer), not machine.answers)
            for machine in self.machines
        ]

    def _free_in(self, machine: Machine, answer: float) -> float:
        if not machine.busy:
            return 0.0
        under_way = overdue(machine.expected, self.now - machine.began)
        return under_way + machine.pace(answer).answering(len(machine.answers) - 1)

    def _help(self) -> bool:
        idle = [machine for machine in self.machines if not machine.busy]
        busy = [machine for machine in self.machines if machine.busy and len(machine.answers) > 1]
        if not idle or not busy:
            return False
        answer = self.answer
        helper = max(idle, key=lambda each: each.speed)
        seats = []
        for machine in busy:
            under_way = overdue(machine.expected, self.now - machine.began)
            place = Place(machine.number, machine.pace(answer), under_way, wanting=False)
            assert machine.task is not None
            seats.append(Busy(place, machine.task.tokens, len(machine.answers) - 1))
        found = best_help(helper.pace(answer), seats)
        if found is None:
            return False
        helped, count = busy[found[0]], found[1]
        assert helped.task is not None
        helper.task = helped.task
        helper.answers = deque(helped.answers.pop() for _ in range(count))
        self._begin(helper)
        return True

    def _begin(self, machine: Machine) -> None:
        assert machine.task is not None
        reads = 0.0 if machine.cached is machine.task else machine.task.tokens / (PREFILL * machine.speed)
        machine.cached = machine.task
        pace = machine.pace(machine.answers[0])
        noise = self.rng.uniform(1 - NOISE, 1 + NOISE)
        machine.busy, machine.began = True, self.now
        machine.expected = reads + machine.pace(self.answer).answering(1)
        heapq.heappush(self.events, (self.now + noise * (reads + pace.answering(1)), machine.number))


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8, help="how many (8)")
    parser.add_argument("--papers", default="200,24", help="how many, several with commas (200,24)")
    parser.add_argument("--prompts", type=int, default=5, help="prompts about each paper (5)")
    parser.add_argument("--spread", type=float, default=10.0, help="the fastest is so many times the slowest (10)")
    parser.add_argument("--seeds", type=int, default=24, help="runs of each (24)")
    parser.add_argument("--policies", default=",".join(POLICIES), help="some of " + ", ".join(POLICIES))
    given = parser.parse_args()
    sizes = [int(size) for size in given.papers.split(",")]
    print(f"{given.workers} workers, speeds 1 to {given.spread:g}: time / least, median (worst) of {given.seeds} runs")
    print(f"{'policy':<10}" + "".join(f"{f'{size:,} papers':>22}" for size in sizes))
    for policy in given.policies.split(","):
        row = []
        for size in sizes:
            runs = [
                Fleet(policy, seed, given.workers, size, given.prompts, given.spread).run()
                for seed in range(given.seeds)
            ]
            row.append(f"{median(runs):.3f} ({max(runs):.3f})")
        print(f"{policy:<10}" + "".join(f"{cell:>22}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
