"""Which seats take new papers, and which help others out, so that all workers end together."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from distllm.balancer.help import Busy, best_help
from distllm.balancer.paces import ANSWER_TOKENS_UNKNOWN, Flight, Pace, slowed, told, usual
from distllm.balancer.placement import Place, longest_in_time
from distllm.dispatcher.seat import Seat
from distllm.dispatcher.station import Station
from distllm.domain.models import Ask, Paper
from distllm.store.leases import Group, Lease

PAPERS_FOR_EACH_SEAT = 2
"""While fewer wait, who takes which paper decides how long it all takes."""


@dataclass(frozen=True, slots=True)
class _Load:
    """Prompts of one reading that a worker has leased and not sent; `take` takes so many of them away."""

    worker_id: int
    busy: Busy
    group: Group
    take: Callable[[int], list[Lease]]


class Placing:
    """How a fleet stands with one model at one moment, and what follows.

    `stations` may all be asked now. Answers are taken to be as long as those so far were on the mean. `places` is
    None if nobody has the model.
    """

    def __init__(self, stations: Sequence[Station], model: str, now: float) -> None:
        self.model = model
        self._now = now
        windows = {station.id: station.windows().get(model) for station in stations}
        self._windows = {worker_id: window for worker_id, window in windows.items() if window is not None}
        self._stations = [station for station in stations if station.id in self._windows]
        answers, tokens = map(sum, zip(*(station.written for station in stations), strict=True))
        self._paces = self._paces_of(tokens / answers if answers else ANSWER_TOKENS_UNKNOWN)
        self._new = {each.id for each in self._stations if model not in each.rates and each.mean_seconds is None}
        self.places = [place for station in self._stations for place in self._places_of(station)] or None

    @property
    def idle(self) -> bool:
        """Whether every seat could begin with a paper now, so that nobody else is to be waited for."""
        return all(place.wanting and not place.free_in for place in self.places or ())

    def _paces_of(self, answer_tokens: float) -> dict[int, Pace]:
        """Whoever has not told its pace is taken to be like the others, and slower while it is silent."""
        paces = {station.id: told(station.rates.get(self.model), answer_tokens) for station in self._stations}
        like_others = usual([pace for pace in paces.values() if pace is not None], answer_tokens)
        flights = {
            station.id: [self._flight(seat) for seat in station.open_seats() if seat.current is not None]
            for station in self._stations
            if paces[station.id] is None
        }
        return {
            worker_id: slowed(like_others, flights[worker_id]) if pace is None else pace
            for worker_id, pace in paces.items()
        }

    def _flight(self, seat: Seat) -> Flight:
        return Flight(seat.reads, self._now - seat.began)

    def _under_way(self, seat: Seat, pace: Pace) -> float:
        return 0.0 if seat.current is None else self._flight(seat).left(pace)

    def _places_of(self, station: Station) -> list[Place]:
        """The station's seats; those that are free first have what it has leased and not begun."""
        pace, window = self._paces[station.id], self._windows[station.id]
        places = [
            Place(
                station.id, pace, self._under_way(seat, pace) + pace.answering(len(seat.leases)), seat.wanting, window
            )
            for seat in station.open_seats()
        ]
        for group in station.ready:
            place = min(places, key=lambda each: each.free_in)
            after = self._not_begun(group, pace, place.free_in).end()
            places[places.index(place)] = replace(place, free_in=after, wanting=False)
        return places

    @staticmethod
    def _not_begun(group: Group, pace: Pace, free_in: float) -> Busy:
        return Busy(pace, free_in, _tokens(group.leases), len(group.leases), has_read=False)

    def _loads(self) -> Iterator[_Load]:
        """All that is leased and not sent."""
        for station in self._stations:
            pace = self._paces[station.id]
            for seat in station.open_seats():
                if seat.leases and seat.current is not None and seat.group is not None:
                    busy = Busy(
                        pace, self._under_way(seat, pace), _tokens(seat.leases), len(seat.leases), has_read=True
                    )
                    yield _Load(station.id, busy, seat.group, partial(_take_from_seat, seat))
            if station.ready:
                soonest = min(
                    self._under_way(seat, pace) + pace.answering(len(seat.leases)) for seat in station.open_seats()
                )
                for group in station.ready:
                    busy = self._not_begun(group, pace, soonest)
                    yield _Load(station.id, busy, group, partial(_take_from_group, station, group))

    def bounded(self, asks: Sequence[Ask], papers: Sequence[Paper]) -> list[Ask]:
        """The same asks, each for no longer a new paper than its worker should take, and no more than seats want one.

        A worker of which nothing is known begins with a short paper: so it tells soon how fast it is.
        """
        room = self._room(len(papers))
        kept = []
        for ask in asks:
            # A worker that helps out asks twice.
            if ask.worker_id not in self._paces or room[ask.worker_id] > 0:
                kept.append(ask)
            room[ask.worker_id] -= 1
        if not self.places or not papers:
            return kept
        bounds = longest_in_time(self.places, papers)
        unknown = sum(ask.worker_id in self._new for ask in kept)
        if unknown:
            short = papers[-min(unknown, len(papers))].needs
            bounds |= {worker_id: min(bounds[worker_id], short) for worker_id in bounds.keys() & self._new}
        return [ask if ask.shared else replace(ask, longest=bounds.get(ask.worker_id)) for ask in kept]

    def _room(self, papers: int) -> Counter[int]:
        """How many asks of each worker are heard: one for each seat that wants a paper.

        Where papers are few, a worker of which nothing is known has one seat at work until it has told how fast it is.
        """
        places = self.places or ()
        room = Counter(place.worker_id for place in places if place.wanting)
        if 0 < papers < PAPERS_FOR_EACH_SEAT * len(places):
            at_work = {place.worker_id for place in places if place.free_in > 0 or not place.wanting}
            for worker_id in self._new:
                room[worker_id] = min(room[worker_id], int(worker_id not in at_work))
        return room

    def help_out(self, idle: Set[int]) -> tuple[Ask, list[Lease]] | None:
        """What one of the `idle` workers asks for to help another, and the leases that are taken from that for it."""
        every = [load for load in self._loads() if load.group.model == self.model]
        cannot = {station.id: station.cannot_help for station in self._stations}
        in_vain: set[tuple[float, int]] = set()
        for worker_id in sorted(idle & self._paces.keys(), key=lambda each: -self._paces[each].prefill):
            decode, window = self._paces[worker_id].decode, self._windows[worker_id]
            if any(decode <= faster and window <= wider for faster, wider in in_vain):
                continue
            loads = [
                load
                for load in every
                if load.worker_id != worker_id
                and load.busy.tokens <= window
                and load.group.reading_id not in cannot[worker_id]
            ]
            best = best_help(self._paces[worker_id], [load.busy for load in loads])
            if best is not None:
                load, count = loads[best[0]], best[1]
                return Ask(worker_id, {self.model: window}, count, reading=load.group.reading_id), load.take(count)
            if not cannot[worker_id]:
                in_vain.add((decode, window))
        return None


def _tokens(leases: Sequence[Lease]) -> int:
    return max(lease.needs for lease in leases)


def _take_from_seat(seat: Seat, count: int) -> list[Lease]:
    return [seat.leases.pop() for _ in range(count)]


def _take_from_group(station: Station, group: Group, count: int) -> list[Lease]:
    station.ready.remove(group)
    if count < len(group.leases):
        station.ready.append(replace(group, leases=group.leases[:-count]))
    return list(group.leases[-count:])
