"""Stragglers: prompts in flight that an idle worker is asked too, under the lease that both then share."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache

from distllm.balancer.paces import Flight, Pace, told
from distllm.balancer.stragglers import LEAST_SECONDS, Straggler, best_hedge
from distllm.dispatcher.seat import Seat
from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.models import Paper
from distllm.store.leases import Group, Lease

HANGS_TIMES = 3.0
"""Who has had so many times what it should have taken, when another has answered, is held to hang."""


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A prompt that one worker takes long for, and how many seconds more it is expected to take there."""

    station: Station
    seat: Seat
    group: Group
    lease: Lease
    rest: float


@dataclass(frozen=True, slots=True)
class _Idle:
    """A worker with seats that are `free`, and its window for each model that it has."""

    station: Station
    windows: Mapping[str, int]
    free: Sequence[Seat]


class Hedges:
    """The leases that two workers are asked at once: the first answer stops the other request.

    If one of the two fails, the lease is the other's, by a rule of the store: it goes back when no attempt under it
    is left. No lease is hedged twice, so that a worker that fails at once is not asked over and over. A worker that
    hangs is never seen to fail, since others answer in its place: so its breaker is told.
    """

    def __init__(self, stations: Sequence[Station], clock: Clock) -> None:
        self._stations = stations
        self._clock = clock
        self._asking: dict[tuple[int, int], list[tuple[Station, Seat]]] = {}

    def begin(self, paused: Set[int], planned: Set[int]) -> tuple[Station, Seat, Lease] | None:
        """Give the straggler that is worth it most to a seat of an idle worker, which is then to ask it.

        None where nobody is idle, or nothing is gained. Nothing more is sent for the jobs that are `paused`, nor to
        workers that the policy has not `planned` to ask.
        """
        idle = [
            _Idle(station, station.windows(), free)
            for station in self._stations
            if station.id in planned and station.taking and not station.silent and (free := _free_seats(station))
        ]
        if not idle:
            return None
        answer_tokens = self._answer_tokens()
        fastest = cache(lambda model: _fastest(idle, model, answer_tokens))
        readers: defaultdict[int | None, list[tuple[_Idle, Seat]]] = defaultdict(list)
        for each in idle:
            for seat in each.free:
                readers[seat.cached].append((each, seat))
        pairs = [
            (slow, other.station, seat, _elsewhere(other.station, seat, slow, answer_tokens))
            for slow in self._in_flight(paused, answer_tokens)
            for other, seat in (*readers[slow.lease.reading_id], *fastest(slow.group.model))
            if other.station is not slow.station and slow.lease.needs <= other.windows.get(slow.group.model, 0)
        ]
        best = best_hedge([Straggler(each.rest, elsewhere) for each, _, _, elsewhere in pairs])
        if best is None:
            return None
        straggler, station, seat, _ = pairs[best]
        lease = straggler.lease
        seat.group = replace(straggler.group, worker_id=station.id, leases=(lease,))
        seat.current = lease
        self._asking[lease.key] = [(straggler.station, straggler.seat), (station, seat)]
        return station, seat, lease

    def wanted(self, lease: Lease, station: Station, seat: Seat) -> bool:
        """Whether a lease is still to be asked a second time, now that the seat comes to it."""
        others = [each for _, each in self._asking.get(lease.key, ()) if each is not seat]
        waited_for = any(each.request is not None and not each.request.stopped for each in others)
        return waited_for and seat.group is not None and station.usable and station.serves(seat.group.model)

    def ended(self, lease: Lease, seat: Seat, *, answered: bool) -> None:
        """A seat asks a lease no more; if it was `answered`, who else asks it is stopped."""
        asking = self._asking.get(lease.key)
        if asking is None:
            return
        left = self._asking[lease.key] = [(station, each) for station, each in asking if each is not seat]
        if answered:
            for station, other in left:
                if other.request is not None:
                    self._blame(station, other, lease)
                    other.request.stop()
        if not left:
            del self._asking[lease.key]

    def _blame(self, station: Station, seat: Seat, lease: Lease) -> None:
        """Tell the breaker of a worker that seems to hang."""
        now = self._clock.ticks()
        pace = _pace(station, seat.group.model, self._answer_tokens()) if seat.group is not None else None
        flight = Flight(seat.reads, now - seat.began)
        if pace is not None and flight.passed >= HANGS_TIMES * flight.expected(pace):
            station.breaker.failed(lease.prompt_id, now)

    def _answer_tokens(self) -> float:
        answers, tokens = map(sum, zip(*(station.written for station in self._stations), strict=True))
        return tokens / answers if answers else 0.0

    def _in_flight(self, paused: Set[int], answer_tokens: float) -> list[_InFlight]:
        """What may be asked a second time: nothing that has failed, or that anybody went down with."""
        now = self._clock.ticks()
        found = []
        for station in self._stations:
            for seat in station.seats:
                lease, group = seat.current, seat.group
                if lease is None or group is None or seat.request is None or seat.request.stopped:
                    continue
                if lease.failures or lease.losses or lease.job_id in paused or lease.key in self._asking:
                    continue
                rest = _rest(station, seat, _pace(station, group.model, answer_tokens), now)
                if rest > LEAST_SECONDS:
                    found.append(_InFlight(station, seat, group, lease, rest))
        return found


def _pace(station: Station, model: str, answer_tokens: float) -> Pace | None:
    """How fast a worker is, as far as it has told; answers are taken to be as long as those so far on the mean."""
    return told(station.rates.get(model), answer_tokens) if answer_tokens else None


def _rest(station: Station, seat: Seat, pace: Pace | None, now: float) -> float:
    """In how many seconds a request is expected to end; 0 where nobody knows, so that it is left alone."""
    if station.silent or not station.well:
        return math.inf
    if pace is None:
        return 0.0
    return Flight(seat.reads, now - seat.began).left(pace)


def _free_seats(station: Station) -> list[Seat]:
    """The seats of an idle worker that could be asked; none if all are at work."""
    if not station.has_free_seat:
        return []
    return [
        seat
        for seat in station.open_seats()
        if seat.wanting and seat.current is None and (seat.task is None or seat.task.done())
    ]


def _fastest(idle: Sequence[_Idle], model: str, answer_tokens: float) -> list[tuple[_Idle, Seat]]:
    """Whom it may be best to ask of those that have not read the paper: none that two others surpass in everything.

    One of two may be the very worker that takes long.
    """
    able = []
    for each in idle:
        if model in each.windows:
            pace = _pace(each.station, model, answer_tokens)
            able.append((each, 0.0 if pace is None else pace.prefill, 0.0 if pace is None else pace.decode))
    found: list[tuple[_Idle, float]] = []
    for each, _, decode in sorted(able, key=lambda one: -one[1]):
        wide = each.windows[model]
        if sum(faster >= decode and other.windows[model] >= wide for other, faster in found) < 2:
            found.append((each, decode))
    return [(each, each.free[0]) for each, _ in found]


def _elsewhere(station: Station, seat: Seat, straggler: _InFlight, answer_tokens: float) -> float | None:
    """In how many seconds an idle seat would have answered a prompt, the reading included if it has not read it."""
    pace = _pace(station, straggler.group.model, answer_tokens)
    tokens = 0 if seat.cached == straggler.lease.reading_id else straggler.lease.needs
    return None if pace is None else pace.seconds(Paper(tokens, 1, 0))
