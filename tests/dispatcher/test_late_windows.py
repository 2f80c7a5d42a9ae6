"""A window that a server tells only once it has loaded its model is believed from the first answer on."""

import pytest

from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.server import FakeServer

QUESTIONS = ["What is asked?", "What was found?"]


@pytest.mark.parametrize("kind", ["ollama", "lm_studio"])
async def test_of_papers_that_do_not_fit_only_the_first_is_sent(kind: str, bench: Bench) -> None:
    await store_job(bench.database, [paper(1, 900), paper(2, 900), paper(3, 40)], QUESTIONS)
    async with FakeServer(kind=kind, context=1024, loaded=()) as server:
        await bench.work(server, health_check_interval=60.0)
        assert len({seen.system for seen in server.requests if seen.ended == "failed"}) == 1
        assert sum(seen.ended == "answered" for seen in server.requests) == 2
    errors = [error for (error,) in bench.rows("SELECT error FROM failures ORDER BY error")]
    assert sum("the largest here holds 1024" in error for error in errors) == 2
    assert len(errors) == 4
    assert all("1024" in error for error in errors)
    bench.assert_consistent()
