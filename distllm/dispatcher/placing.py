"""Which seats take new papers, and which help others out, so that all workers end together."""

from collections.abc import Sequence, Set
from dataclasses import replace

from distllm.balancer.placement import Busy, Pace, Place, best_help, longest_in_time, overdue
from distllm.dispatcher.station import Seat, Station
from distllm.domain.models import Ask, Paper
from distllm.store.leases import Lease

QUESTION_TOKENS = 50.0
"""What is read anew for each question, about."""


class Placing:
    """What is known of the pace of a fleet for one model at one moment.

    It is unknown (`places` is None) until every usable worker has told how fast it reads and writes: until then
    weights decide. Answers are taken to be as long as those so far were on the mean.
    """

    def __init__(self, stations: Sequence[Station], model: str, now: float) -> None:
        self.model = model
        answers, tokens = map(sum, zip(*(station.written for station in stations), strict=True))
        answer_tokens = tokens / answers if answers else 0.0
        self._seats: list[tuple[Station, Seat]] = []
        self.places: list[Place] | None = None
        paces: dict[int, Pace] = {}
        for station in stations:
            if not station.usable or not station.serves(model):
                continue
            rates = station.rates.get(model)
            if rates is None or not rates.prefill or not rates.decode or not answer_tokens:
                return
            paces[station.id] = Pace(rates.prefill, rates.decode, QUESTION_TOKENS, answer_tokens)
            self._seats += ((station, seat) for seat in station.open_seats())
        self.places = [
            Place(station.id, paces[station.id], _free_in(seat, paces[station.id], now), seat.wanting)
            for station, seat in self._seats
        ]

    def bounded(self, asks: Sequence[Ask], papers: Sequence[Paper]) -> list[Ask]:
        """The same asks, each for no longer a new paper than its worker should take."""
        if not self.places or not papers:
            return list(asks)
        bounds = longest_in_time(self.places, papers)
        return [ask if ask.shared else replace(ask, longest=bounds.get(ask.worker_id)) for ask in asks]

    def help_out(self, idle: Set[int]) -> tuple[Ask, list[Lease]] | None:
        """What one of the `idle` workers asks for to help another, and the leases that are taken from that for it."""
        if not self.places:
            return None
        busy = [
            (seat, Busy(place, _tokens(seat), len(seat.leases)))
            for (_, seat), place in zip(self._seats, self.places, strict=True)
            if seat.leases and seat.current and seat.group is not None and seat.group.model == self.model
        ]
        if not busy:
            return None
        pace = {place.worker_id: place.pace for place in self.places}
        windows = {station.id: station.windows() for station, _ in self._seats}
        for worker_id in sorted(idle & pace.keys(), key=lambda each: -pace[each].prefill):
            best = best_help(pace[worker_id], [each for _, each in busy])
            if best is None:
                continue
            seat, count = busy[best[0]][0], best[1]
            assert seat.group is not None
            if max(lease.needs for lease in seat.leases) > windows[worker_id][self.model]:
                continue
            taken = [seat.leases.pop() for _ in range(count)]
            return Ask(worker_id, windows[worker_id], count, reading=seat.group.reading_id), taken
        return None


def _free_in(seat: Seat, pace: Pace, now: float) -> float:
    if seat.current is None and not seat.leases:
        return 0.0
    expected = seat.reads / pace.prefill + pace.answering(1)
    under_way = 0.0 if seat.current is None else overdue(expected, now - seat.began)
    return under_way + pace.answering(len(seat.leases))


def _tokens(seat: Seat) -> int:
    return max(lease.needs for lease in seat.leases)
