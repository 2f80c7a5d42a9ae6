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
