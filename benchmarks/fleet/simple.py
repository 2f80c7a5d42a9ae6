"""What distllm is compared with: random choice, fixed beforehand, and pulling in a given order."""

from collections import deque
from collections.abc import Sequence
from random import Random

from benchmarks.fleet.servers import Request, Server
from benchmarks.fleet.simulation import Simulation
from benchmarks.fleet.work import Task
from distllm.domain.models import ErrorClass
from distllm.domain.policy import limits

POLICIES = ("prompts", "papers", "pull", "longest")


class Simple:
    """Knows at once who is up, and, for the choice by weight, how fast each is: more than one who does so can know."""

    def __init__(self, policy: str, simulation: Simulation, tasks: Sequence[Task], rng: Random) -> None:
        self._dealt = policy in ("prompts", "papers")
        self._whole = policy != "prompts"
        self._simulation = simulation
        self._rng = rng
        self._left = sum(len(task.answers) for task in tasks)
        self._own: dict[int, deque[tuple[Task, list[int]]]] = {each.number: deque() for each in simulation.servers}
        self._shared: deque[tuple[Task, list[int]]] = deque()
        self._seats: dict[int, list[tuple[Task, list[int]] | None]] = {
            each.number: [None] * each.slots for each in simulation.servers
        }
        mean = sum(task.tokens for task in tasks) / sum(sum(task.answers) for task in tasks)
        self._speeds = {each.number: 1 / (mean / each.prefill + 1 / each.most_decode) for each in simulation.servers}
        self._touched = set(self._own)
        for task in tasks if policy != "longest" else sorted(tasks, key=lambda each: -each.tokens):
            prompts = list(range(len(task.answers)))
            for piece in [prompts] if self._whole else [[prompt] for prompt in prompts]:
                self._deal(task, piece)

    @property
    def done(self) -> bool:
        """Whether everything has been answered."""
        return self._left == 0

    def _deal(self, task: Task, prompts: list[int]) -> None:
        if self._dealt:
            servers = [each for each in self._simulation.servers if each.up] or self._simulation.servers
            chosen = self._rng.choices(servers, [self._speeds[each.number] for each in servers])[0].number
            self._own[chosen].append((task, prompts))
            self._touched.add(chosen)
        else:
            self._shared.append((task, prompts))
            self._touched.update(self._own)

    def ended(self, server: Server, request: Request, error: ErrorClass | None) -> None:
        """What failed is dealt again."""
        self._touched.add(server.number)
        place = request.holder
        assert isinstance(place, int)
        held = self._seats[server.number][place]
        assert held is not None
        if error is None:
            self._left -= 1
        else:
            self._deal(held[0], [request.prompt])
        if not held[1]:
            self._seats[server.number][place] = None
        elif error is None:
            self._next(server, place)
        else:
            self._deal(*held)
            self._seats[server.number][place] = None

    def changed(self, server: Server) -> None:
        """What waits for a server that is down is dealt again."""
        self._touched.add(server.number)
        if not server.up:
            waiting, self._own[server.number] = self._own[server.number], deque()
            for task, prompts in waiting:
                self._deal(task, prompts)

    def step(self) -> None:
        """Every free seat takes what is next."""
        touched, self._touched = sorted(self._touched), set()
        for server in (self._simulation.servers[number] for number in touched):
            for place, held in enumerate(self._seats[server.number]):
                queue = self._own[server.number] if self._dealt else self._shared
                if held is None and queue and server.up:
                    self._seats[server.number][place] = queue.popleft()
                    self._next(server, place)

    def _next(self, server: Server, place: int) -> None:
        held = self._seats[server.number][place]
        assert held is not None
        limit = limits(sent_tokens=held[0].tokens, max_tokens=1000, request_timeout=300, prefill_rate=server.prefill)
        self._simulation.send(server, held[0], held[1].pop(0), place, limit.first_token)
