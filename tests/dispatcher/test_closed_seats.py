"""What becomes of a seat that is closed: for a trial it ends what it holds, for a busy server it gives all back."""

from collections.abc import AsyncIterator

import pytest

from distllm.dispatcher.seat import Seat
from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.models import ErrorClass, Health, Offer, Outcome, Usage, WorkerSpec, WorkerType
from distllm.store.fleet import Knowledge
from distllm.store.leases import Group, Lease
from distllm.workers import make_worker
from distllm.workers.session import open_session

ANSWER = Outcome(None, None, "yes", None, "stop", "m", Usage(completion_tokens=20), 1.0, 0.1)
BUSY = Outcome(ErrorClass.BUSY, "busy", "", None, None, None, Usage(), 0.1, None)


class Bare:
    """A station of two seats without a server: its requests are begun and ended by hand, a second each."""

    def __init__(self) -> None:
        self.ticks = 0.0
        self.prompts = 0
        self.station: Station

    def take(self, reading: int, prompts: int) -> None:
        first, self.prompts = self.prompts, self.prompts + prompts
        leases = (Lease(first + n, 1, 1, reading, 1, None, 0, 0, 0, 1000, None) for n in range(prompts))
        self.station.take(Group(1, reading, "m", "text", None, tuple(leases)))

    def send(self) -> None:
        """Every seat that may send something does."""
        for seat in self.station.seats:
            if seat.current is None and (lease := self.station.next_lease(seat)) is not None:
                self.station.begin(seat, lease)

    def end(self, outcome: Outcome = ANSWER) -> None:
        """All that is in flight ends."""
        self.ticks += 1.0
        for seat in self.station.seats:
            if seat.current is not None:
                self.station.end(seat, "m", outcome)

    @property
    def closed(self) -> Seat:
        assert len(self.station.open_seats()) == 1
        return self.station.seats[1]


@pytest.fixture
async def bare() -> AsyncIterator[Bare]:
    """Two seats amid a paper each."""
    bare = Bare()
    async with open_session() as session:
        worker = make_worker(WorkerSpec(name="w0", type=WorkerType.OPENAI, port=1), session)
        bare.station = Station(1, worker, 2, (), Knowledge(), Clock(ticks=lambda: bare.ticks))
        bare.station.note(Health(True, (Offer("m", 8192),)))
        bare.take(7, 60)
        bare.take(8, 60)
        bare.send()
        yield bare


async def test_a_seat_that_is_closed_for_a_trial_ends_what_it_holds_and_takes_nothing_new(bare: Bare) -> None:
    while len(bare.station.open_seats()) == 2:
        bare.end()
        bare.send()
    bare.take(9, 1)
    assert bare.station.surplus() == []
    assert len(bare.closed.leases) > 40
    for left in range(len(bare.closed.leases), -1, -1):
        assert len(bare.closed.leases) == left
        assert bare.closed.current is not None
        assert bare.closed.current.reading_id == 8
        bare.station.end(bare.closed, "m", ANSWER)
        assert bare.station.may_send(bare.closed) is (left > 0)
        bare.send()
    assert bare.closed.current is None
    bare.station.seats[0].leases.clear()
    assert [group.reading_id for group in bare.station.ready] == [9]
    assert bare.station.may_send(bare.station.seats[0])


async def test_a_busy_server_is_asked_nothing_more_on_the_seat_that_is_closed(bare: Bare) -> None:
    bare.end(BUSY)
    assert not bare.station.may_send(bare.closed)
    assert {lease.reading_id for lease in bare.station.surplus()} == {8}
    # What it had is for an open seat now: given to the closed one, it would come back at once.
    bare.take(8, 3)
    assert not bare.closed.leases
    assert not bare.station.may_send(bare.closed)
    assert [group.reading_id for group in bare.station.ready] == [8]


async def test_a_seat_that_is_opened_again_is_the_one_that_was_there(bare: Bare) -> None:
    bare.end(BUSY)
    closed = bare.closed
    while len(bare.station.open_seats()) == 1:
        bare.send()
        bare.end()
    assert bare.station.open_seats()[1] is closed
    assert closed.reading == 8
