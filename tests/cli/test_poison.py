"""A paper that kills the coordinator whenever it is asked about is found, and nothing else fails for it."""

import os
import signal

import pytest

from distllm.domain.policy import DEATHS_TO_CONDEMN, LOSSES_TO_SUSPECT
from tests.cli.conftest import Cli
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

KILLS = LOSSES_TO_SUSPECT + DEATHS_TO_CONDEMN
POISON = "paper2word0"


@pytest.mark.timeout(180)
async def test_a_paper_that_kills_whoever_asks_about_it_fails_and_the_others_are_answered(cli: Cli) -> None:
    cli.papers(8)
    deaths: list[list[str]] = []
    victim = 0

    def look(seen: Seen) -> None:
        if POISON in seen.system:
            deaths.append([each.system for each in server.requests if each.ended is None])
            os.kill(victim, signal.SIGKILL)

    async with FakeServer(slots=4, seconds_per_token=0.05, on_request=look) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked?")
        victim = process.pid
        while (done := await cli.finish(process)).code == -signal.SIGKILL:
            process = await cli.start("resume")
            victim = process.pid
    assert done.code == 3, done.err
    # The first time it was asked, the attempt may not have been on the disk.
    assert KILLS <= len(deaths) <= KILLS + 1
    assert [len(in_flight) for in_flight in deaths[-DEATHS_TO_CONDEMN:]] == [1] * DEATHS_TO_CONDEMN
    assert cli.rows("SELECT state, count(*) FROM prompts GROUP BY 1") == [("done", 7), ("failed", 1)]
    [(document, error)] = cli.rows("SELECT document, error FROM failures")
    assert document == "paper2.txt"
    assert "nothing else in flight" in error
    assert document in done.out
