"""Streams that do not end as answers do, in a whole run with each kind of server: asked again, and never kept."""

import pytest

from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import BREAKS_OFF, GOOD, Behaviour, Ending, fails_inside
from tests.fakes.server import FakeServer

BAD = (
    # All the words of an answer, and then the end of the stream.
    Behaviour(ending=Ending.EOF),
    BREAKS_OFF,
    fails_inside({"message": "the runner has died", "code": 500}),
    fails_inside("the runner has died"),
    fails_inside("the runner has died", after=0),
    # Status 200, and an error instead of an answer.
    Behaviour(body={"error": {"message": "the runner has died", "code": 500}}),
    Behaviour(body={"error": "the runner has died"}),
)


@pytest.mark.parametrize("kind", ["llamacpp", "lm_studio", "ollama"])
async def test_what_ends_without_its_marker_or_with_an_error_is_no_answer(bench: Bench, kind: str) -> None:
    questions = [f"What is {n}?" for n in range(10)]
    await store_job(bench.database, [paper(0)], questions)
    async with FakeServer(kind=kind) as server:
        for bad in BAD:
            # An answer in between, so that nobody takes the server for dead.
            server.behave(bad, GOOD)
        await bench.work(server, max_retries=len(BAD))
        assert len(server.requests) == len(questions) + len(BAD)
    assert bench.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [
        ("broken", len(BAD)),
        ("done", 10),
    ]
    assert sorted(bench.rows("SELECT prompt, answer FROM answers")) == [
        (f"q{n}", f"Answer to: {question}") for n, question in enumerate(questions)
    ]
    assert bench.rows("SELECT sum(failures) FROM prompts") == [(len(BAD),)]
    bench.assert_consistent()
