"""With a database, a batch outlives whoever asked for it: killed, cancelled, or made again."""

import asyncio
import importlib
import json
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from distllm import LoadBalancer
from distllm.store.locks import coordinator_lock
from tests.api.conftest import config_of, rows
from tests.fakes.behaviour import EMPTY, GOOD, HANGS, Behaviour
from tests.fakes.server import FakeServer
from tests.packages import install

PROGRAM = """
import asyncio, json, sys
from distllm import Config, LoadBalancer

async def main(config, db, count):
    async with LoadBalancer(Config.load(config), db=db) as balancer:
        results = await balancer.process_batch([f"Question {n}?" for n in range(int(count))])
    print(json.dumps([[result.text, result.attempts] for result in results]))

asyncio.run(main(*sys.argv[1:]))
"""


async def start(folder: Path, server: FakeServer, count: int) -> Process:
    """A program of its own that asks `count` questions."""
    config = folder / "workers.json"
    config.write_text(config_of(server).model_dump_json(exclude_defaults=True), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTLLM")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, config, folder / "answers.db", str(count)), stdout=PIPE, env=environment
    )


async def finish(process: Process) -> list[Any]:
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return list(json.loads(out))


def texts(count: int) -> list[str]:
    return [f"Answer to: Question {n}?" for n in range(count)]


async def test_killed_midway_the_same_program_asks_only_what_is_missing(tmp_path: Path) -> None:
    async with FakeServer(slots=2, seconds_per_token=0.02) as server:
        process = await start(tmp_path, server, 30)
        await server.until(lambda: len(server.requests) >= 9, seconds=30)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        kept = rows(tmp_path / "answers.db", "SELECT prompt_id, attempt_id, answer FROM results ORDER BY 1")
        assert kept
        results = await finish(await start(tmp_path, server, 30))
        # The kill can have cost each seat what was in flight, and what had ended since the last commit.
        assert len(server.requests) <= 30 + 2 * 2
    assert [text for text, _ in results] == texts(30)
    after = rows(tmp_path / "answers.db", "SELECT prompt_id, attempt_id, answer FROM results ORDER BY 1")
    assert len(after) == 30
    assert set(kept) <= set(after)
    assert rows(tmp_path / "answers.db", "SELECT count(*) FROM jobs") == [(1,)]


async def test_the_same_batch_again_is_answered_from_the_database(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    prompts = [f"Question {n}?" for n in range(8)]
    async with FakeServer() as server:
        async with LoadBalancer(config_of(server), db=db) as balancer:
            first = await balancer.process_batch(prompts)
        async with LoadBalancer(config_of(server), db=db) as balancer:
            heard: list[Any] = []
            assert await balancer.process_batch(iter(prompts), on_progress=heard.append) == first
            assert [(step.done, step.total) for step in heard] == [(8, 8)]
            assert len(server.requests) == 8
            await balancer.process_batch(prompts, temperature=0.7)
            assert len(server.requests) == 16
            await balancer.process_batch(prompts, fresh=True)
            assert len(server.requests) == 24


async def test_a_batch_that_overlaps_another_asks_only_what_is_new(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    system = {"role": "system", "content": "The dam broke in March, and forty houses were lost to the river. " * 60}

    def prompts(*numbers: int) -> list[Any]:
        long = [[system, {"role": "user", "content": f"Long {n}?"}] for n in numbers]
        return [*(f"Short {n}?" for n in numbers), *long]

    async with FakeServer(slots=2) as server, LoadBalancer(config_of(server), db=db) as balancer:
        first = await balancer.process_batch(prompts(1, 2))
        second = await balancer.process_batch(prompts(3, 2))
        asked = [seen.question for seen in server.requests]
    assert sorted(asked) == sorted(f"{kind} {n}?" for kind in ("Short", "Long") for n in (1, 2, 3))
    assert [result.text for result in second] == [f"Answer to: {k} {n}?" for k in ("Short", "Long") for n in (3, 2)]
    assert (second[1].seconds, second[1].attempts) == (first[1].seconds, 0)
    assert rows(db, "SELECT count(*) FROM answers WHERE reused_from = 1") == [(2,)]
    assert rows(db, "SELECT state, total, done FROM job_progress") == [("completed", 4, 4)] * 2


async def test_a_prompt_that_is_asked_several_times_gets_as_many_answers_from_all_seats(tmp_path: Path) -> None:
    async with FakeServer(slots=4) as server:
        server.answer = lambda _: f"Answer {len(server.requests)}"
        server.behave_always(Behaviour(first_token_after=0.02))
        async with LoadBalancer(config_of(server), db=tmp_path / "answers.db") as balancer:
            first = await balancer.process_batch(["A number?"] * 8, temperature=1.0)
            second = await balancer.process_batch(["A number?"] * 9, temperature=1.0)
        assert len({seen.slot for seen in server.requests}) == 4
        assert len(server.requests) == 9
    assert len({result.index for result in first}) == 8
    assert [result.text for result in second[:8]] == [result.text for result in first]


async def test_what_failed_is_asked_again_by_the_same_batch(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    async with FakeServer() as server, LoadBalancer(config_of(server, max_retries=0), db=db) as balancer:
        server.behave(EMPTY)
        first = await balancer.process_batch(["one?", "two?"])
        assert sorted(result.error is None for result in first) == [False, True]
        second = await balancer.process_batch(["one?", "two?"])
        assert len(server.requests) == 3
    assert [result.text for result in second] == ["Answer to: one?", "Answer to: two?"]
    assert rows(db, "SELECT state, total, done, failed FROM job_progress") == [("completed", 2, 2, 0)]
    assert sorted(result.attempts for result in second) == [1, 2]


async def test_cancelled_it_stops_its_requests_and_gives_everything_back(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    async with FakeServer(slots=3) as server, LoadBalancer(config_of(server), db=db) as balancer:
        server.behave_always(HANGS)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await balancer.process_batch([f"Question {n}?" for n in range(9)])
        await server.until(lambda: {seen.ended for seen in server.requests} == {"disconnected"})
        assert rows(db, "SELECT state, sum(failures), count(*) FROM prompts GROUP BY state") == [("pending", 0, 9)]
        assert rows(db, "SELECT DISTINCT outcome FROM attempts") == [("released",)]
        assert not coordinator_lock(db).is_held()


async def test_cancelled_at_any_moment_no_lease_is_left(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    async with (
        FakeServer(slots=4, seconds_per_token=0.002) as server,
        LoadBalancer(config_of(server), db=db) as balancer,
    ):
        prompts = [f"Question {n}?" for n in range(60)]
        for wanted in (0, 1, 7, 20):
            batch = asyncio.create_task(balancer.process_batch(prompts))
            before = len(server.requests)
            await server.until(lambda before=before, wanted=wanted: len(server.requests) >= before + wanted)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            assert rows(db, "SELECT count(*) FROM prompts WHERE state = 'leased'") in ([(0,)], [])
        results = await balancer.process_batch(prompts)
    assert [result.text for result in results] == texts(60)
    assert rows(db, "SELECT count(*) FROM results") == [(60,)]


async def test_without_a_database_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with FakeServer() as server:
        async with LoadBalancer(config_of(server)) as balancer:
            assert [each.name for each in tmp_path.rglob("*.db")] == ["batch.db"]
            server.behave_always(HANGS)
            batch = asyncio.create_task(balancer.process_batch(["What?"]))
            await server.until(lambda: len(server.requests) == 1)
        with pytest.raises(RuntimeError, match="only inside of its block"):
            await batch
    assert list(tmp_path.iterdir()) == []


async def test_a_callback_that_raises_stops_the_batch_and_is_heard(tmp_path: Path) -> None:
    async def stop(_: object) -> None:
        raise LookupError("enough")

    db = tmp_path / "answers.db"
    async with FakeServer() as server, LoadBalancer(config_of(server), db=db) as balancer:
        with pytest.raises(LookupError, match="enough"):
            await balancer.process_batch(["What?"], on_progress=stop)
        assert not coordinator_lock(db).is_held()
        assert rows(db, "SELECT count(*) FROM prompts WHERE state = 'leased'") == [(0,)]


async def test_behind_a_live_coordinator_it_follows_and_takes_over_when_that_is_killed(tmp_path: Path) -> None:
    async with FakeServer(seconds_per_token=0.1) as server:
        other = await start(tmp_path, server, 12)
        await server.until(lambda: len(server.requests) >= 1, seconds=30)
        async with LoadBalancer(config_of(server), db=tmp_path / "answers.db") as balancer:
            batch = asyncio.create_task(balancer.process_batch(["And this?", "And that?"]))
            await server.until(lambda: len(server.requests) >= 3)
            other.send_signal(signal.SIGKILL)
            await other.wait()
            server.seconds_per_token = 0.0
            results = await batch
    assert [result.text for result in results] == ["Answer to: And this?", "Answer to: And that?"]


async def test_a_batch_that_was_cancelled_elsewhere_says_so(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    async with FakeServer() as server, LoadBalancer(config_of(server), db=db) as balancer:
        server.behave_always(HANGS)
        batch = asyncio.create_task(balancer.process_batch(["one?", "two?"]))
        await server.until(lambda: len(server.requests) == 1)
        with closing(sqlite3.connect(db)) as other, other:
            other.execute("UPDATE prompts SET state = 'cancelled', holder = NULL, finished_at = 5")
            other.execute("UPDATE job_counters SET leased = 0, pending = 0, cancelled = 2")
            other.execute("UPDATE jobs SET cancel_requested_at = 5, finished_at = 5")
        results = await batch
        assert [result.error for result in results] == ["not answered: its batch was cancelled"] * 2
        server.behave_always(GOOD)
        again = await balancer.process_batch(["one?", "two?"])
    assert [result.text for result in again] == ["Answer to: one?", "Answer to: two?"]


@pytest.mark.parametrize("kept", [True, False])
async def test_samples_of_the_workers_are_kept_unless_that_is_switched_off(tmp_path: Path, kept: bool) -> None:
    db = tmp_path / "answers.db"
    async with FakeServer() as server, LoadBalancer(config_of(server, enable_metrics=kept), db=db) as balancer:
        await balancer.process_batch(["one?", "two?"])
        figures = balancer.figures()["w0"]
    assert (figures.succeeded, figures.success_rate) == (2, 1.0)
    assert rows(db, "SELECT sum(succeeded) FROM worker_metrics") == [(2 if kept else None,)]


async def test_a_sink_that_raises_harms_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = "class Bad:\n    def observe(self, event): raise LookupError('no network')\n    close = None\n"
    install(tmp_path / "site", monkeypatch, "bad_sink", code, {"distllm.metrics": {"bad": "bad_sink:Bad"}})
    async with FakeServer() as server, LoadBalancer(config_of(server, metrics=["bad"])) as balancer:
        results = await balancer.process_batch(["one?", "two?"])
    assert [result.error for result in results] == [None, None]
    assert [record.getMessage() for record in caplog.records if record.name == "distllm.metrics"] == [
        "the metrics sink 'bad' failed (LookupError: no network); said once"
    ]


async def test_a_batch_that_is_paused_elsewhere_ends_with_what_it_has_and_goes_on_when_made_again(
    tmp_path: Path,
) -> None:
    db = tmp_path / "answers.db"
    async with FakeServer() as server, LoadBalancer(config_of(server), db=db) as balancer:
        server.behave(GOOD, Behaviour(first_token_after=0.3))
        batch = asyncio.create_task(balancer.process_batch(["a long first?", "second?", "third?"]))
        await server.until(lambda: len(server.requests) == 2)
        with closing(sqlite3.connect(db)) as other, other:
            other.execute("UPDATE jobs SET paused_at = 5")
        first = await batch
        assert [result.error for result in first].count("not answered: its batch was stopped or paused") >= 1
        assert sum(result.text is not None for result in first) >= 1
        second = await balancer.process_batch(["a long first?", "second?", "third?"])
    assert all(result.error is None for result in second)


async def test_a_batch_that_is_cancelled_while_it_is_written_still_has_a_result_for_each_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = tmp_path / "answers.db"
    # Two prompts to a transaction.
    monkeypatch.setattr("distllm.batches.CHUNK_REQUESTS", 2)
    async with FakeServer() as server, LoadBalancer(config_of(server), db=db) as balancer:
        server.behave_always(Behaviour(first_token_after=0.05))
        batch = asyncio.create_task(balancer.process_batch([f"Question {n}?" for n in range(400)]))
        async with asyncio.timeout(10):
            while not rows(db, "SELECT id FROM prompts LIMIT 1"):  # noqa: ASYNC110 - a commit sets no event here
                await asyncio.sleep(0)
        with closing(sqlite3.connect(db)) as other, other:
            other.execute("UPDATE jobs SET cancel_requested_at = 5, submitted_at = 5, finished_at = 5")
        results = await batch
    assert [result.index for result in results] == list(range(400))
    assert {result.error for result in results[-10:]} == {"not answered: its batch was cancelled"}


async def test_cancelled_while_it_asks_what_weights_there_are_it_can_be_made_again(tmp_path: Path) -> None:
    db = tmp_path / "answers.db"
    async with FakeServer() as server:
        async with LoadBalancer(config_of(server), db=db) as balancer:
            await balancer.process_batch(["one?"])
        async with LoadBalancer(config_of(server), db=db) as balancer:
            server.probe_hangs = True
            probes = server.probes
            batch = asyncio.create_task(balancer.process_batch(["one?", "two?"]))
            await server.until(lambda: server.probes > probes)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            server.probe_hangs = False
            await server.stop()
            await server.start()
            results = await balancer.process_batch(["one?", "two?"])
    assert [result.text for result in results] == ["Answer to: one?", "Answer to: two?"]


async def test_batches_at_the_same_time_have_one_sink_of_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
class Counted:
    alive = most = heard = 0
    def __init__(self):
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
    def observe(self, event): Counted.heard += 1
    def close(self): Counted.alive -= 1
"""
    install(
        tmp_path / "site", monkeypatch, "counted_sink", code, {"distllm.metrics": {"counted": "counted_sink:Counted"}}
    )
    async with FakeServer() as server, LoadBalancer(config_of(server, metrics=["counted"])) as balancer:
        await asyncio.gather(*(balancer.process_batch([f"{batch}?", "Why?"]) for batch in range(3)))
    counted = importlib.import_module("counted_sink").Counted
    assert (counted.alive, counted.most) == (0, 1)
    assert counted.heard >= 6
