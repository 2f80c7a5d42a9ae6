"""A paper that kills the coordinator whenever it is asked about is found, and nothing else fails for it."""

import os
import signal

import pytest
from sqlalchemy import text

from distllm.domain.policy import DEATHS_TO_CONDEMN, LOSSES_TO_SUSPECT
from distllm.store.database import open_database
from tests.cli.conftest import Cli, Done, on_both_engines
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

POISON = "paper2word0"
MANY_DEATHS = text(
    f"UPDATE prompts SET lease = 6, losses = {LOSSES_TO_SUSPECT}, deaths_alone = {DEATHS_TO_CONDEMN - 2}"
    " WHERE document_id = (SELECT document_id FROM job_documents WHERE name = 'paper2.txt')"
)


async def killed_by(cli: Cli, server: FakeServer, *begin: str) -> tuple[list[int], Done]:
    """Run until a command survives; each that sends the poison is killed. How many were in flight, each time."""
    deaths: list[int] = []
    victim = 0

    def look(seen: Seen) -> None:
        if POISON in seen.system:
            deaths.append(sum(each.ended is None for each in server.requests))
            os.kill(victim, signal.SIGKILL)

    server._on_request = look
    process = await cli.start(*begin)
    victim = process.pid
    while (done := await cli.finish(process)).code == -signal.SIGKILL:
        process = await cli.start("resume")
        victim = process.pid
    return deaths, done


def assert_only_the_poison_failed(cli: Cli, done: Done, papers: int) -> None:
    assert done.code == 3, done.err
    assert cli.rows("SELECT state, count(*) FROM prompts GROUP BY 1 ORDER BY 1") == [
        ("done", papers - 1),
        ("failed", 1),
    ]
    [(document, error)] = cli.rows("SELECT document, error FROM failures")
    assert document == "paper2.txt"
    assert "nothing else in flight" in error
    assert document in done.out


@on_both_engines
async def test_a_paper_that_kills_whoever_asks_about_it_alone_fails_and_the_others_are_answered(cli: Cli) -> None:
    cli.papers(8)
    async with FakeServer(slots=4, seconds_per_token=0.05) as server:
        cli.use(server)
        assert (await cli.run("submit", "--detach", "papers", "--prompt", "What is asked?")).code == 0
        # What takes many deaths to come to has happened already.
        place = cli.database if cli.store is None else cli.store.place
        async with open_database(place) as database:
            await database.write(lambda tx: tx.run(MANY_DEATHS, {}))
        deaths, done = await killed_by(cli, server, "resume")
    assert deaths == [1, 1]
    assert_only_the_poison_failed(cli, done, 8)


@pytest.mark.long
@pytest.mark.timeout(180)
@on_both_engines
async def test_a_paper_that_kills_whoever_asks_about_it_is_found_from_its_first_death_on(cli: Cli) -> None:
    cli.papers(8)
    async with FakeServer(slots=4, seconds_per_token=0.05) as server:
        cli.use(server)
        deaths, done = await killed_by(cli, server, "submit", "papers", "--prompt", "What is asked?")
    # The first time it was asked, the attempt may not have been on the disk.
    assert LOSSES_TO_SUSPECT + DEATHS_TO_CONDEMN <= len(deaths) <= LOSSES_TO_SUSPECT + DEATHS_TO_CONDEMN + 1
    assert deaths[-DEATHS_TO_CONDEMN:] == [1] * DEATHS_TO_CONDEMN
    assert_only_the_poison_failed(cli, done, 8)
