"""What the workers did over time is kept, one sample after another, for a week."""

import pytest

from distllm.dispatcher.samples import KEPT_SECONDS, Samples
from distllm.dispatcher.station import Station
from distllm.domain.clock import Clock
from distllm.domain.events import Answered, TriedInVain
from distllm.domain.models import ErrorClass, Health, Usage, WorkerSpec, WorkerType
from distllm.store.fleet import Knowledge, know_worker
from distllm.store.samples import LARGEST_DROP, Sample, add_samples
from distllm.workers import make_worker
from distllm.workers.session import open_session
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import BREAKS_OFF
from tests.fakes.server import FakeServer

COLUMNS = "healthy, in_flight, requests, succeeded, failed, completion_tokens, seconds"


def answer(tokens: int, seconds: float) -> Answered:
    return Answered(1, "w0", 1.0, seconds, 0.1, "m", Usage(completion_tokens=tokens), "stop")


async def test_each_sample_tells_what_was_done_since_the_one_before(bench: Bench) -> None:
    now = 1000.0
    async with open_session() as session:
        worker = make_worker(WorkerSpec(name="w0", type=WorkerType.OPENAI, port=1), session)
        worker_id = await bench.database.write(lambda tx: know_worker(tx, worker.identity, "w0", "openai"))
        clock = Clock(now=lambda: now)
        station = Station(worker_id, worker, None, (), Knowledge(), clock)
        samples = Samples([station], bench.database, clock)
        assert await samples.step() == 1
        assert await samples.step() == 0, "nothing has happened"
        station.note(Health(healthy=True))
        samples.observe(answer(10, 2.0))
        samples.observe(answer(5, 1.0))
        samples.observe(TriedInVain(1, "w0", 1.0, 9.0, ErrorClass.BROKEN, "it broke", False))
        now = 1010.0
        assert await samples.step() == 1
        now = 1020.0
        assert await samples.step() == 1, "the work has ended, which is to be seen"
        assert await samples.step() == 0
    assert bench.rows(f"SELECT at, {COLUMNS} FROM worker_metrics ORDER BY id") == [
        (1000.0, 0, 0, 0, 0, 0, 0, 0.0),
        (1010.0, 1, 0, 3, 2, 1, 15, 3.0),
        (1020.0, 1, 0, 0, 0, 0, 0, 0.0),
    ]


async def test_what_is_older_than_a_week_goes_a_batch_at_a_time(bench: Bench) -> None:
    now = 10 * KEPT_SECONDS
    worker = await bench.database.write(lambda tx: know_worker(tx, "http://w:1", "w", "openai"))
    sample = Sample(worker, True, 0, 1, 1, 0, 1, 1.0)
    old = [sample] * (LARGEST_DROP + 7)
    await bench.database.write(lambda tx: add_samples(tx, old, now - KEPT_SECONDS - 1))
    await bench.database.write(lambda tx: add_samples(tx, [sample] * 3, now - KEPT_SECONDS + 1))
    samples = Samples([], bench.database, Clock(now=lambda: now))
    left = []
    for _ in range(3):
        await samples.step()
        left += bench.rows("SELECT count(*) FROM worker_metrics")
    assert left == [(10,), (3,), (3,)]


async def test_a_run_leaves_samples_that_agree_with_its_attempts(bench: Bench) -> None:
    await store_job(bench.database, [paper(n) for n in range(3)], ["What?", "How?"])
    async with FakeServer() as server:
        server.behave(BREAKS_OFF)
        await bench.work(server, keep_samples=True)
    sums = "sum(requests), sum(succeeded), sum(failed), sum(completion_tokens), sum(seconds)"
    [told] = bench.rows(f"SELECT {sums} FROM worker_metrics")
    [done] = bench.rows("SELECT requests, succeeded, failed, completion_tokens, seconds FROM workers")
    assert told == pytest.approx(done)
    assert told[:3] == (7, 6, 1)


async def test_every_attempt_keeps_all_that_is_known_of_it(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?", "How?"])
    async with FakeServer() as server:
        server.behave(BREAKS_OFF)
        await bench.work(server)
    rows = bench.rows(
        "SELECT outcome, worker_id, sent_tokens > 0, started_at <= finished_at, first_token_seconds > 0, "
        "prompt_tokens > 0, cached_tokens, completion_tokens > 0, prefill_seconds >= 0, decode_seconds > 0 "
        "FROM attempts ORDER BY id"
    )
    assert [row[0] for row in rows] == ["broken", "done", "done"]
    assert all(row[1:4] == (1, 1, 1) for row in rows)
    assert all(None not in row for row in rows[1:])
    assert rows[-1][6] > 0, "the second question found the paper cached"


async def test_switched_off_a_run_leaves_no_samples(bench: Bench) -> None:
    await store_job(bench.database, [paper(0)], ["What?"])
    async with FakeServer() as server:
        await bench.work(server, keep_samples=False)
    assert bench.rows("SELECT count(*) FROM results") == [(1,)]
    assert bench.rows("SELECT count(*) FROM worker_metrics") == [(0,)]
