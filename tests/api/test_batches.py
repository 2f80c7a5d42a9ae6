"""`process_batch`: whatever becomes of each prompt, results come in the order of the prompts."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from distllm import BatchProgress, LoadBalancer, NoWorkerError, UsageError
from distllm.batches import BatchRequest, Spool, store_batch
from distllm.compose.run import Run
from distllm.domain.clock import Clock
from distllm.store.database import open_database
from tests.api.conftest import config_of, rows
from tests.fakes.behaviour import EMPTY, HANGS, Behaviour
from tests.fakes.server import FakeServer


async def test_results_come_in_the_order_of_the_prompts_whatever_takes_how_long() -> None:
    rng = Random(3)
    prompts = [f"Question {n}, {'please ' * rng.randrange(9)}?" for n in range(120)]
    async with FakeServer(slots=4) as one, FakeServer(slots=3) as two:
        one.behave(*(Behaviour(first_token_after=rng.uniform(0, 0.03)) for _ in range(100)))
        two.behave(*(Behaviour(first_token_after=rng.uniform(0, 0.06)) for _ in range(100)))
        async with LoadBalancer(config_of(one, two)) as balancer:
            results = await balancer.process_batch(prompts)
        assert {result.worker for result in results} == {"w0", "w1"}
    assert [result.text for result in results] == [f"Answer to: {prompt}" for prompt in prompts]
    assert [result.index for result in results] == list(range(120))
    assert all(result.error is None and result.attempts == 1 for result in results)
    assert {(result.model, result.finish_reason) for result in results} == {("fake-model", "stop")}
    assert all(result.seconds and result.prompt_tokens and result.completion_tokens for result in results)


async def test_two_thousand_prompts_of_a_generator_with_progress_that_only_grows() -> None:
    heard: list[BatchProgress] = []
    busiest = 0

    def busy(_: object) -> None:
        nonlocal busiest
        busiest = max(busiest, sum(seen.ended is None for seen in server.requests[-50:]))

    async with FakeServer(slots=8, answer=lambda seen: "Yes", on_request=busy) as server:
        async with LoadBalancer(config_of(server)) as balancer:
            results = await balancer.process_batch(
                (f"Is {n} a number?" for n in range(2000)), max_concurrent=5, on_progress=heard.append
            )
        assert len(server.requests) == 2000
    assert len(results) == 2000
    assert {result.text for result in results} == {"Yes"}
    assert busiest == 5
    done = [step.done for step in heard]
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, 2000)
    assert all(step.total == 2000 and step.rate >= 0 for step in heard)
    assert all(step.eta is not None and step.eta >= 0 for step in heard[1:])


async def test_the_prompts_of_a_batch_never_lie_in_memory_together(tmp_path: Path) -> None:
    def prompts() -> Iterator[str]:
        for number in range(2000):
            yield f"{number} " + "x" * 40_000

    async with open_database(tmp_path / "d.db") as database:
        with Spool() as spool:
            tracemalloc.start()
            await spool.take(prompts())
            await store_batch(database, spool, BatchRequest("any", 100, 0.0), (), Clock())
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert rows(tmp_path / "d.db", "SELECT count(*), sum(length(body)) > 80e6 FROM prompts") == [(2000, 1)]
    assert peak < 30e6


async def test_a_prompt_that_fails_is_a_result_with_its_error() -> None:
    async with FakeServer(context=300) as server:
        server.behave(EMPTY)
        async with LoadBalancer(config_of(server, max_retries=0)) as balancer:
            results = await balancer.process_batch(["first?", "second? " * 400, "third?"], max_tokens=50)
    broken, too_long, good = results[0], results[1], results[2]
    if broken.text is not None:
        broken, good = good, broken
    assert (broken.text, broken.attempts, broken.worker) == (None, 1, "w0")
    assert broken.error
    assert (too_long.text, too_long.attempts) == (None, 0)
    assert too_long.error is not None
    assert "300" in too_long.error
    assert good.error is None


async def test_messages_are_sent_as_they_are() -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who built the dam?"},
        {"role": "assistant", "content": "The town."},
        {"role": "user", "content": "When?"},
    ]
    async with FakeServer() as server, LoadBalancer(config_of(server)) as balancer:
        [result] = await balancer.process_batch([conversation], max_tokens=77, temperature=0.5)
        body = server.requests[0].body
    assert body["messages"] == conversation
    assert (body["max_tokens"], body["temperature"], body["model"]) == (77, 0.5, "fake-model")
    assert result.text == "Answer to: When?"


async def test_an_asynchronous_generator_gives_prompts_too() -> None:
    async def prompts() -> AsyncIterator[str]:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"Question {number}?"

    async with FakeServer() as server, LoadBalancer(config_of(server)) as balancer:
        results = await balancer.process_batch(prompts())
    assert [result.text for result in results] == [f"Answer to: Question {n}?" for n in range(3)]


@pytest.mark.parametrize(
    ("prompts", "kind", "said"),
    [
        ("one text", TypeError, "not one str"),
        (["good?", 7], ValueError, r"prompts\[1\]: a prompt is a text"),
        (["good?", "  "], ValueError, r"prompts\[1\]: is empty"),
        (["good?", []], ValueError, r"prompts\[1\]: the last message must be the user's"),
        ([[{"role": "assistant", "content": "Hm."}]], ValueError, r"prompts\[0\]: the last message"),
        ([[{"role": "user", "text": "What?"}]], ValueError, r"prompts\[0\]\[0\]: a message is"),
        ([[{"role": "tool", "content": "x"}]], ValueError, r"prompts\[0\]\[0\]: the role must be one of"),
        ([[{"role": "user", "content": None}]], ValueError, r"prompts\[0\]\[0\]: the content must be a text"),
        (["half \ud800?"], ValueError, r"prompts\[0\]: half of a surrogate"),
        ([{"role": "user", "content": "What?"}], ValueError, r"prompts\[0\]: a prompt is a text"),
    ],
)
async def test_what_is_no_prompt_is_named_by_its_place_and_nothing_is_asked(
    prompts: object, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    async with FakeServer() as server, LoadBalancer(config_of(server), db=tmp_path / "d.db") as balancer:
        with pytest.raises(kind, match=said):
            await balancer.process_batch(prompts)  # type: ignore[arg-type]
        assert not server.requests
    assert rows(tmp_path / "d.db", "SELECT count(*) FROM jobs") == [(0,)]


@pytest.mark.parametrize(
    "limits", [{"max_concurrent": 0}, {"max_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}]
)
async def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    async with FakeServer() as server, LoadBalancer(config_of(server)) as balancer:
        with pytest.raises(ValueError, match="must be at least"):
            await balancer.process_batch(["What?"], **limits)  # type: ignore[arg-type]


async def test_no_prompts_have_no_results() -> None:
    async with FakeServer() as server, LoadBalancer(config_of(server)) as balancer:
        assert await balancer.process_batch([]) == []


async def test_the_configuration_bounds_what_is_in_flight_where_the_call_does_not() -> None:
    async with FakeServer(slots=6) as server:
        server.behave_always(HANGS)
        async with LoadBalancer(config_of(server, max_concurrent_batch=2)) as balancer:
            batch = asyncio.create_task(balancer.process_batch([f"Question {n}?" for n in range(20)]))
            await server.until(lambda: len(server.requests) >= 2)
            with pytest.raises(TimeoutError):
                await server.until(lambda: len(server.requests) > 2, seconds=0.5)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch


async def test_a_long_system_message_is_read_by_one_seat_and_a_short_one_by_all() -> None:
    long = "The dam broke in March, and forty houses were lost to the river. " * 60
    for system, slots_used in ((long, 1), ("Be brief.", 4)):
        prompts = [
            [{"role": "system", "content": system}, {"role": "user", "content": f"Question {n}?"}] for n in range(12)
        ]
        async with FakeServer(slots=4, seconds_per_token=0.01) as server:
            async with LoadBalancer(config_of(server)) as balancer:
                results = await balancer.process_batch(prompts)
            assert len({seen.slot for seen in server.requests}) == slots_used
            assert {seen.system for seen in server.requests} == {system}
        assert [result.text for result in results] == [f"Answer to: Question {n}?" for n in range(12)]


async def test_the_stream_gives_results_while_others_are_still_asked() -> None:
    async with FakeServer() as server, LoadBalancer(config_of(server)) as balancer:
        server.behave(Behaviour(), HANGS)
        got = []
        async for result in balancer.stream(["a longer question, asked first?", "short?", "short?"]):
            got.append(result.text)
            break
        assert got == ["Answer to: a longer question, asked first?"]
        await server.until(lambda: server.requests[1].ended == "disconnected")


async def test_nobody_to_ask_is_an_error_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Run.__init__.__kwdefaults__, "no_worker_limit", 0.5)
    async with FakeServer() as server:
        await server.stop()
        async with LoadBalancer(config_of(server)) as balancer:
            with pytest.raises(NoWorkerError, match="w0"):
                await balancer.process_batch(["What?"])


async def test_batches_at_the_same_time_are_both_answered() -> None:
    async with FakeServer(slots=2, seconds_per_token=0.01) as server, LoadBalancer(config_of(server)) as balancer:
        first, second = await asyncio.gather(
            balancer.process_batch([f"First {n}?" for n in range(6)]),
            balancer.process_batch([f"Second {n}?" for n in range(6)]),
        )
        assert len(server.requests) == 12
    assert [result.text for result in first] == [f"Answer to: First {n}?" for n in range(6)]
    assert [result.text for result in second] == [f"Answer to: Second {n}?" for n in range(6)]


async def test_outside_of_its_block_a_balancer_says_how_it_is_used() -> None:
    async with FakeServer() as server:
        balancer = LoadBalancer(config_of(server))
        with pytest.raises(RuntimeError, match="async with"):
            await balancer.process_batch(["What?"])


async def test_an_address_is_no_database_and_its_password_is_not_repeated() -> None:
    async with FakeServer() as server:
        with pytest.raises(UsageError, match="an address of another kind") as caught:
            LoadBalancer(config_of(server), db="mysql://me:secret@studio/answers")
    assert "secret" not in str(caught.value)
