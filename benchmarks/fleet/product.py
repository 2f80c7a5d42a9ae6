"""distllm itself: its stations, policies, breakers, rates and placing, on made-up servers instead of a network.

Only what the database and the event loop do is told anew here: what waits is kept in a list, and a turn looks at those
stations alone that something has happened to, or that found nothing to do.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from benchmarks.fleet.servers import Request, Server
from benchmarks.fleet.simulation import Simulation
from benchmarks.fleet.work import Task
from distllm.balancer.policies import Machine, make_policy
from distllm.dispatcher.placing import Placing
from distllm.dispatcher.probes import SOONEST_SECONDS
from distllm.dispatcher.seat import Seat
from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.models import Ask, ErrorClass, Health, Offer, Outcome, Paper, Usage
from distllm.domain.policy import Again, Done, Lost, limits, verdict
from distllm.store.backlog import most_prompts
from distllm.store.fleet import Knowledge
from distllm.store.leases import Group, Lease

MODEL = "model"
MAX_TOKENS, RETRIES, REQUEST_TIMEOUT, PROBE_SECONDS = 1000, 3, 300.0, 30.0
SHORTEST_TURN_SECONDS = 0.1
TURN_SECONDS_FOR_EACH_WORKER = 0.0005
"""How long a turn takes, with the commit that it makes, about."""
NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class _Name:
    """What a station asks of a worker."""

    name: str
    weight: float = 1.0


@dataclass(slots=True, eq=False)
class _Reading:
    """A paper, and those of its prompts that wait, each as (number, when it failed, where)."""

    task: Task
    waiting: dict[int, tuple[float, int] | None]

    @property
    def key(self) -> tuple[int, int]:
        """The longest are last, and of these the first to come."""
        return self.task.tokens, -self.task.number


@dataclass(slots=True)
class _Pool:
    """What nobody has taken, as the database would have it."""

    readings: dict[int, _Reading]
    order: list[tuple[int, int]] = field(default_factory=list)
    waiting: int = 0

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> "_Pool":
        readings = {each.number: _Reading(each, dict.fromkeys(range(len(each.answers)))) for each in tasks}
        waiting = sum(len(each.waiting) for each in readings.values())
        return cls(readings, sorted(each.key for each in readings.values()), waiting)

    def papers(self, workers: int) -> list[Paper]:
        """What `backlog` tells."""
        if self.waiting > most_prompts(workers):
            return []
        return [
            Paper(tokens, len(self.readings[-negative].waiting), tokens) for tokens, negative in reversed(self.order)
        ]

    def put(self, number: int, prompt: int, failed: tuple[float, int] | None) -> None:
        reading = self.readings[number]
        if not reading.waiting:
            insort(self.order, reading.key)
        reading.waiting[prompt] = failed
        self.waiting += 1

    def take(self, ask: Ask, held: Counter[int], now: float) -> tuple[_Reading, list[int]] | None:
        """What `claim` gives: of the reading that the seat has, else of the longest that nobody holds."""
        if ask.reading is not None:
            prompts = self._ready(self.readings[ask.reading], ask, now)
            if prompts:
                return self._taken(self.readings[ask.reading], prompts)
        end = len(self.order) if ask.longest is None else bisect_right(self.order, (ask.longest, 0))
        for place in range(end - 1, -1, -1):
            number = -self.order[place][1]
            if ask.shared or not held[number]:
                prompts = self._ready(self.readings[number], ask, now)
                if prompts:
                    return self._taken(self.readings[number], prompts)
        return None

    @staticmethod
    def _ready(reading: _Reading, ask: Ask, now: float) -> list[int]:
        ready = [
            prompt
            for prompt, failed in reading.waiting.items()
            if failed is None or failed[1] != ask.worker_id or failed[0] <= now - ask.patience
        ]
        return sorted(ready)[: ask.limit]

    def _taken(self, reading: _Reading, prompts: list[int]) -> tuple[_Reading, list[int]]:
        for prompt in prompts:
            del reading.waiting[prompt]
        self.waiting -= len(prompts)
        if not reading.waiting:
            del self.order[bisect_left(self.order, reading.key)]
        return reading, prompts


class Product:
    """distllm with one of its policies, working one job."""

    def __init__(
        self,
        policy: str,
        simulation: Simulation,
        tasks: Sequence[Task],
        rng: Random,
    ) -> None:
        self._policy = make_policy(policy)
        self._simulation = simulation
        self._rng = rng
        self._pool = _Pool.of(tasks)
        self._left = self._pool.waiting
        self._failures: Counter[tuple[int, int]] = Counter()
        self._numbers: Counter[tuple[int, int]] = Counter()
        self._held: Counter[int] = Counter()
        self._best: float | None = None
        self._turn = max(SHORTEST_TURN_SECONDS, TURN_SECONDS_FOR_EACH_WORKER * len(simulation.servers))
        self._next_turn, self._waking = 0.0, False
        clock = Clock(now=lambda: simulation.now, ticks=lambda: simulation.now)
        self._stations = [
            Station(each.number, cast(Any, _Name(str(each.number))), None, (), Knowledge(), clock)
            for each in simulation.servers
        ]
        self._waits = [SOONEST_SECONDS] * len(self._stations)
        self._touched = set(range(len(self._stations)))
        for server in simulation.servers:
            self._look(server)

    @property
    def done(self) -> bool:
        """Whether everything has been answered."""
        return self._left == 0

    def changed(self, server: Server) -> None:
        """Nobody tells distllm: it looks, or finds out."""

    def watch(self, servers: Iterable[int]) -> None:
        """Look again and again at the health of those that something may happen to."""
        for number in servers:
            self._look_again(self._simulation.servers[number])

    def _look_again(self, server: Server) -> None:
        self._simulation.at(self._simulation.now + self._waits[server.number], lambda: self._probe(server))

    def _probe(self, server: Server) -> None:
        station = self._stations[server.number]
        was_well = station.well
        if server.up or not station.in_flight:
            self._look(server)
            sooner = SOONEST_SECONDS if was_well else 2 * self._waits[server.number]
            self._waits[server.number] = PROBE_SECONDS if server.up else min(sooner, PROBE_SECONDS)
        self._look_again(server)

    def _look(self, server: Server) -> None:
        offers = (Offer(MODEL, None),)
        self._stations[server.number].note(Health(server.up, offers if server.up else (), slots=server.slots))
        self._touched.add(server.number)

    def ended(self, server: Server, request: Request, error: ErrorClass | None) -> None:
        """Learn from it, and go on with the seat."""
        station, now = self._stations[server.number], self._simulation.now
        seat, lease = cast(tuple[Seat, Lease], request.holder)
        self._end(station, seat, lease, error, request.usage(now) if error is None else NOTHING, now - request.began)
        self._start(station)

    def _end(
        self, station: Station, seat: Seat, lease: Lease, error: ErrorClass | None, usage: Usage, seconds: float
    ) -> None:
        self._let_go(lease)
        outcome = Outcome(error, None, "", None, "stop", MODEL, usage, seconds, None)
        station.end(seat, MODEL, outcome)
        self._touched.add(station.id)
        key = lease.reading_id, lease.prompt_id
        now = self._simulation.now
        judged = verdict(
            outcome,
            failures=lease.failures,
            losses=0,
            deaths_alone=0,
            max_retries=RETRIES,
            now=now,
            rng=self._rng,
        )
        match judged:
            case Done():
                self._left -= 1
            case Again() | Lost():
                charged = isinstance(judged, Again) and judged.charged
                self._failures[key] += charged
                failed = (judged.at, station.id) if charged else None
                self._simulation.at(judged.at, lambda: self._back(*key, failed))
            case _:
                raise RuntimeError(f"a prompt failed for good: {judged}")

    def _back(self, reading: int, prompt: int, failed: tuple[float, int] | None) -> None:
        self._pool.put(reading, prompt, failed)
        if failed is not None:
            self._simulation.at(failed[0] + 16.0, lambda: None)

    def _let_go(self, lease: Lease) -> None:
        self._held[lease.reading_id] -= 1
        if not self._held[lease.reading_id]:
            del self._held[lease.reading_id]

    def _return(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            self._let_go(lease)
            self._pool.put(lease.reading_id, lease.prompt_id, None)

    def step(self) -> None:
        """What `Turns.step` does, again as long as a worker can help another; what happens meanwhile waits."""
        now = self._simulation.now
        if now < self._next_turn:
            if not self._waking:
                self._waking = True
                self._simulation.at(self._next_turn, lambda: None)
            return
        self._waking, self._next_turn = False, now + self._turn
        self._claim(self._asks())
        while self._help_out():
            pass

    def _asks(self) -> list[Ask]:
        touched, self._touched = sorted(self._touched), set()
        machines = []
        for number in touched:
            station = self._stations[number]
            if not (station.usable or station.in_flight):
                self._return(station.unsent())
            if not station.usable:
                # It asks when its breaker lets one through, or a probe finds it well.
                opens = station.breaker.reopens_at()
                if opens is not None and opens > self._simulation.now:
                    self._simulation.at(opens, lambda number=number: self._touched.add(number))
                continue
            mean = station.mean_seconds
            if mean is not None and (self._best is None or mean < self._best):
                self._best = mean
            machine = station.view(self._best, self._held.keys())
            if machine.seats:
                machines.append(machine)
                self._touched.add(number)
        if len(machines) == 1 and len(self._stations) > 1:
            # Another worker without a free seat, which counts as another all the same.
            machines.append(Machine(-1, {}, 1.0, ()))
        return self._policy.plan(machines, self._rng) if machines else []

    def _placing(self) -> Placing | None:
        stations = [station for station in self._stations if station.usable]
        if len(stations) < 2:
            return None
        placing = Placing(stations, MODEL, self._simulation.now)
        return placing if placing.places else None

    def _claim(self, asks: Sequence[Ask]) -> None:
        if not asks:
            return
        papers = self._pool.papers(len(self._stations))
        placing = self._placing() if papers and any(not ask.shared for ask in asks) else None
        if placing is not None:
            asks = placing.bounded(asks, papers)
        # As in the store, every seat goes on with what it has read before any takes a new reading.
        first = [ask for ask in asks if ask.reading is not None and self._pool.readings[ask.reading].waiting]
        for ask in [*first, *(ask for ask in asks if ask not in first)] if first else asks:
            self._serve(ask)

    def _serve(self, ask: Ask) -> None:
        found = self._pool.take(ask, self._held, self._simulation.now)
        if found is None:
            return
        reading, prompts = found
        leases = tuple(self._lease(reading.task, prompt) for prompt in prompts)
        self._held[reading.task.number] += len(leases)
        station = self._stations[ask.worker_id]
        station.take(Group(ask.worker_id, reading.task.number, MODEL, None, None, leases))
        self._start(station)

    def _lease(self, task: Task, prompt: int) -> Lease:
        key = task.number, prompt
        self._numbers[key] += 1
        failures = self._failures[key] if self._failures else 0
        return Lease(prompt, self._numbers[key], 1, task.number, None, None, failures, 0, 0, task.tokens, MAX_TOKENS)

    def _start(self, station: Station) -> None:
        server = self._simulation.servers[station.id]
        for seat in station.seats:
            while seat.current is None and (lease := station.next_lease(seat)) is not None:
                station.begin(seat, lease)
                self._touched.add(station.id)
                if not server.up:
                    self._end(station, seat, lease, ErrorClass.REFUSED, NOTHING, 0.0)
                    continue
                rates = station.rates.get(MODEL)
                limit = limits(
                    sent_tokens=lease.needs,
                    max_tokens=MAX_TOKENS,
                    request_timeout=REQUEST_TIMEOUT,
                    prefill_rate=rates.prefill if rates else None,
                    decode_rate=rates.decode if rates else None,
                ).first_token
                task = self._pool.readings[lease.reading_id].task
                self._simulation.send(server, task, lease.prompt_id, (seat, lease), limit)

    def _help_out(self) -> bool:
        """Have one worker that found nothing help another; return whether there was one."""
        idle = {n for n in self._touched if self._stations[n].usable and self._stations[n].has_free_seat}
        placing = self._placing() if idle else None
        found = None if placing is None else placing.help_out(idle)
        if found is None:
            return False
        ask, taken = found
        self._return(taken)
        self._serve(ask)
        return True
