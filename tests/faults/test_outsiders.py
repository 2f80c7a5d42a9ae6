"""Other programs on the same database: one that holds it for long, and one that reads and never ends."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from distllm.store.database import open_database
from tests.cli.conftest import Cli
from tests.cli.test_kill import answered, assert_done_once
from tests.cli.test_mistakes_with_databases import held
from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.server import FakeServer


@pytest.mark.long
async def test_a_database_that_is_held_for_ten_seconds_is_waited_for_and_that_is_said(cli: Cli) -> None:
    async with FakeServer(seconds_per_token=0.02) as server:
        cli.use(server)
        async with open_database(cli.database) as database:
            await store_job(database, [paper(n) for n in range(20)], ["What?"])
        process = await cli.start("resume")
        await cli.until(lambda: len(answered(cli)) >= 3)
        with held(cli.database):
            before = answered(cli)
            await asyncio.wait([asyncio.create_task(process.wait())], timeout=10.0)
            assert process.returncode is None
            assert answered(cli) == before
            # Only what was leased has been asked meanwhile.
            assert len(server.requests) <= len(before) + 5
        done = await cli.finish(process)
        assert done.code == 0, done.err
        assert len(server.requests) == 20
    assert done.err.count("is held by another program; waiting up to 60 s") == 1
    assert_done_once(cli, 20, before)
    assert cli.rows("SELECT sum(failures), sum(losses) FROM prompts") == [(0, 0)]


async def test_a_reader_that_never_ends_delays_no_answer_and_the_log_is_taken_up_when_it_does(
    sqlite_bench: Bench,
) -> None:
    answer = "word" * 3000
    log = sqlite_bench.database.place.with_name(sqlite_bench.database.place.name + "-wal")
    for round_number in range(2):
        papers = [paper(100 * round_number + n) for n in range(40)]
        await store_job(sqlite_bench.database, papers, ["What?"], max_tokens=500)
        async with FakeServer(slots=4, answer=lambda _: answer, context=100_000) as server:
            if round_number == 0:
                with closing(sqlite3.connect(sqlite_bench.database.place)) as reader:
                    cursor = reader.execute("SELECT id FROM prompts UNION ALL SELECT id FROM documents")
                    first = cursor.fetchone()
                    await sqlite_bench.work(server)
                    assert len(server.requests) == 40
                    assert first is not None
                    assert len(cursor.fetchall()) == 79, "it sees what was there when it began"
                    grown = log.stat().st_size
            else:
                await sqlite_bench.work(server)
    # While it read, the log could only grow; what was written later went over what it had kept.
    assert grown > 500_000
    assert log.stat().st_size < 2 * grown
    sqlite_bench.assert_consistent()
