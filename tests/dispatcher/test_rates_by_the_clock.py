"""How fast servers are that tell no times: LM Studio, vLLM, mlx-lm and any other that tells no more than it must.

A loaded machine makes them slower, never faster.
"""

import pytest

from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.behaviour import Behaviour
from tests.fakes.server import FakeServer

PREFILL, DECODE = 1000, 200
QUESTIONS = ["What was asked?", "What was found?", "Who paid for it?"]
ANSWER = "it was asked how many houses were lost to the flood of that year"


def rates(bench: Bench) -> tuple[float | None, float | None]:
    ((prefill, decode),) = bench.rows("SELECT prefill_rate, decode_rate FROM worker_models")
    return prefill, decode


def untimed(kind: str, **more: object) -> FakeServer:
    settings = {"seconds_per_prompt_token": 1 / PREFILL, "seconds_per_token": 1 / DECODE, **more}
    return FakeServer(kind=kind, answer=lambda _: ANSWER, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["vllm", "plain", "lm_studio"])
async def test_their_rates_are_learnt_from_when_their_tokens_came(sqlite_bench: Bench, kind: str) -> None:
    await store_job(sqlite_bench.database, [paper(n, 150) for n in range(3)], QUESTIONS[:2])
    async with untimed(kind) as server:
        await sqlite_bench.work(server)
    prefill, decode = rates(sqlite_bench)
    assert prefill is not None
    assert decode is not None
    # What is found cached is no reading: it would be many times as fast.
    assert PREFILL / 4 < prefill < 1.2 * PREFILL
    assert DECODE / 4 < decode < 1.2 * DECODE


async def test_the_time_that_a_model_was_loaded_for_is_none_of_reading(sqlite_bench: Bench) -> None:
    await store_job(sqlite_bench.database, [paper(0, 150)], QUESTIONS)
    async with untimed("lm_studio", loaded=(), seconds_to_load=1.0) as server:
        await sqlite_bench.work(server)
        assert len(server.loads) == 1
        prefill, decode = rates(sqlite_bench)
        assert prefill is None
        assert decode is not None
        await store_job(sqlite_bench.database, [paper(1, 150), paper(2, 150)], QUESTIONS)
        await sqlite_bench.work(server)
    prefill, _ = rates(sqlite_bench)
    assert prefill is not None
    assert PREFILL / 4 < prefill < 1.2 * PREFILL


async def test_what_may_have_been_cached_without_a_word_teaches_no_reading_speed(sqlite_bench: Bench) -> None:
    async with untimed("lm_studio") as server:
        found = []
        for question in QUESTIONS:
            await store_job(sqlite_bench.database, [paper(0, 150), paper(1, 150)], [question])
            await sqlite_bench.work(server)
            found.append(rates(sqlite_bench)[0])
    assert found[0] is not None
    assert found == found[:1] * 3


async def test_an_answer_that_was_held_back_and_came_at_once_teaches_no_speed(sqlite_bench: Bench) -> None:
    """As behind a proxy that collects what it passes on."""
    await store_job(sqlite_bench.database, [paper(0, 150), paper(1, 150)], QUESTIONS)
    whole = {
        "model": "fake-model",
        "choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 170, "completion_tokens": 14},
    }
    async with untimed("plain") as server:
        server.behave_always(Behaviour(body=whole))
        await sqlite_bench.work(server)
    assert rates(sqlite_bench) == (None, None)
