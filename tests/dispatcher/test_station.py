"""What a station makes of what is leased for it."""

from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.models import Health, Offer, WorkerSpec, WorkerType
from distllm.store.fleet import Knowledge
from distllm.store.leases import Group, Lease
from distllm.workers import make_worker
from distllm.workers.session import open_session


def group(reading_id: int, text: str, prompt_id: int) -> Group:
    lease = Lease(prompt_id, 1, 1, reading_id, 1, None, 0, 0, 0, 100, None)
    return Group(1, reading_id, "m", None, text, (lease,))


async def test_a_reading_with_the_id_of_one_that_was_pruned_is_read_by_its_own_text() -> None:
    async with open_session() as session:
        worker = make_worker(WorkerSpec(name="w", type=WorkerType.OPENAI, port=1), session)
        station = Station(1, worker, None, (), Knowledge(), Clock())
        station.note(Health(healthy=True, offers=(Offer("m", 1000),)))
        (seat,) = station.seats
        for number, text in enumerate(["an old paper", "a new paper"]):
            station.take(group(7, text, number))
            lease = station.next_lease(seat)
            assert lease is not None
            assert lease.prompt_id == number
            assert seat.group is not None
            assert seat.group.system == text


async def test_what_a_worker_is_tried_with_is_its_own_and_what_it_has_failed_is_not() -> None:
    async with open_session() as session:
        worker = make_worker(WorkerSpec(name="w", type=WorkerType.OPENAI, port=1), session)
        clock = Clock()
        for opened_before, trusted in ((10.0, True), (0.0, False)):
            station = Station(1, worker, None, (), Knowledge(), clock)
            station.note(Health(healthy=True, offers=(Offer("m", 1000),)))
            (seat,) = station.seats
            station.take(group(7, "a paper", 1))
            lease = station.next_lease(seat)
            assert lease is not None
            if trusted:
                station.breaker.refused(clock.ticks() - opened_before)
            station.begin(seat, lease)
            if not trusted:
                station.breaker.refused(clock.ticks())
            assert not station.usable
            assert station.trusted is trusted
            station.breaker.failed(lease.prompt_id, clock.ticks())
            assert not station.trusted
