"""What a server may put into an answer that a database could not hold."""

import pytest

from distllm.domain.models import Call, Limits, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.session import open_session
from tests.fakes.behaviour import Behaviour
from tests.fakes.server import FakeServer


async def ask(server: FakeServer) -> str:
    async with open_session() as session:
        spec = WorkerSpec(name="w", type=WorkerType.OPENAI, host=server.host, port=server.port)
        call = Call("fake-model", "a paper", "What?", max_tokens=50, temperature=0.0, tokens=5)
        outcome = await make_worker(spec, session).ask(call, Limits(5, 5, 5))
    assert outcome.error_class is None, outcome.error
    assert outcome.model == "fake-model"
    return outcome.answer


async def test_half_a_character_and_a_nul_are_not_passed_on() -> None:
    async with FakeServer() as server:
        server.behave(Behaviour(answer="well\0 done \ud83d"))
        assert await ask(server) == "well done �"


ODD_NUMBERS = [
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "-5",
    '"7"',
    str(2**80),
    str(10**400),
    "[]",
    "{}",
    "true",
    "null",
    "0.5",
]


@pytest.mark.parametrize("kind", ["llamacpp", "ollama"])
@pytest.mark.parametrize("number", ODD_NUMBERS)
async def test_numbers_that_no_database_could_hold_are_none(kind: str, number: str) -> None:
    counts = ("prompt_tokens", "completion_tokens", "cache_n", "prompt_n", "predicted_n", "prompt_ms", "predicted_ms")
    nanoseconds = ("prompt_eval_count", "eval_count", "prompt_eval_duration", "eval_duration")
    told = ", ".join(f'"{name}": {number}' for name in (*counts, *nanoseconds))
    message = '"message": {"content": "fine"}'
    if kind == "ollama":
        body = f'{{{message}, "done": true, "done_reason": "stop", {told}}}'
    else:
        choices = f'[{{{message}, "finish_reason": "stop"}}]'
        body = f'{{"choices": {choices}, "usage": {{{told}}}, "timings": {{{told}}}}}'
    async with FakeServer(kind=kind) as server, open_session() as session:
        server.behave(Behaviour(body=body.encode()))
        spec = WorkerSpec("w", WorkerType.OLLAMA if kind == "ollama" else WorkerType.OPENAI, port=server.port)
        outcome = await make_worker(spec, session).ask(Call("fake-model", "", "What?", 50, 0.0, 5), Limits(5, 5, 5))
    assert (outcome.answer, outcome.error) == ("fine", None)
    usage = outcome.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (None, None, None)
    for seconds in (usage.prefill_seconds, usage.decode_seconds):
        assert seconds is None or 0 <= seconds < 1e12


@pytest.mark.parametrize("kind", ["llamacpp", "ollama"])
@pytest.mark.parametrize(("told", "believed"), [(51, 51), (2**32 - 1, None)])
async def test_a_count_of_many_more_tokens_than_were_allowed_is_none(
    kind: str, told: int, believed: int | None
) -> None:
    message = {"role": "assistant", "content": "fine", "thinking": "hm", "reasoning": "hm"}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": told}}
    line = {"message": message, "done": True, "done_reason": "stop", "eval_count": told}
    async with FakeServer(kind=kind) as server, open_session() as session:
        server.behave(Behaviour(body=line if kind == "ollama" else whole))
        spec = WorkerSpec("w", WorkerType.OLLAMA if kind == "ollama" else WorkerType.OPENAI, port=server.port)
        outcome = await make_worker(spec, session).ask(Call("fake-model", "", "What?", 50, 0.0, 5), Limits(5, 5, 5))
    assert (outcome.answer, outcome.error) == ("fine", None)
    assert outcome.usage.completion_tokens == believed


@pytest.mark.parametrize(
    ("said", "thinking", "answer"),
    [
        ("so, hm</think>\n\nin March", "so, hm", "in March"),
        ("<think>so, hm</think>in March", "so, hm", "in March"),
        ("</think>in March", None, "in March"),
        ("<think>so</think>it is written </think>", "so", "it is written </think>"),
        ("written <think>so</think>", None, "written <think>so</think>"),
        ("in March", None, "in March"),
    ],
)
async def test_thoughts_that_the_template_began_end_where_the_model_ends_them(
    said: str, thinking: str | None, answer: str
) -> None:
    async with FakeServer() as server, open_session() as session:
        server.behave(Behaviour(answer=said), Behaviour(thinking="apart", answer="the tag </think> ends thoughts"))
        worker = make_worker(WorkerSpec("w", WorkerType.OPENAI, port=server.port), session)
        asked = Call("fake-model", "", "What?", 50, 0.0, 5)
        outcome, apart = [await worker.ask(asked, Limits(5, 5, 5)) for _ in range(2)]
    assert (outcome.thinking, outcome.answer, outcome.error) == (thinking, answer, None)
    assert (apart.thinking, apart.answer) == ("apart", "the tag </think> ends thoughts")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("answer", ["in March", ""])
async def test_thoughts_in_a_field_of_their_own_are_no_answer(field: str, answer: str) -> None:
    message = {"role": "assistant", "content": answer, field: "let me see"}
    kind = "ollama" if field == "thinking" else "llamacpp"
    whole = {"choices": [{"message": message, "finish_reason": "length"}], "usage": {"completion_tokens": 9}}
    line = {"message": message, "done": True, "done_reason": "length", "eval_count": 9}
    async with FakeServer(kind=kind) as server, open_session() as session:
        server.behave(Behaviour(body=line if kind == "ollama" else whole))
        spec = WorkerSpec("w", WorkerType.OLLAMA if kind == "ollama" else WorkerType.OPENAI, port=server.port)
        outcome = await make_worker(spec, session).ask(Call("fake-model", "", "What?", 50, 0.0, 5), Limits(5, 5, 5))
    assert (outcome.answer, outcome.thinking) == (answer, "let me see")
    assert (outcome.error is None) == bool(answer)
    assert answer or "only reasoning and no answer within 9 tokens" in (outcome.error or "")


@pytest.mark.parametrize("said", ["<think>so, hm</think>", "<think>so, hm", "so, hm</think>\n\n"])
async def test_an_answer_that_is_all_thoughts_in_tags_is_none(said: str) -> None:
    async with FakeServer() as server, open_session() as session:
        server.behave(Behaviour(answer=said))
        worker = make_worker(WorkerSpec("w", WorkerType.OPENAI, port=server.port), session)
        outcome = await worker.ask(Call("fake-model", "", "What?", 50, 0.0, 5), Limits(5, 5, 5))
    assert (outcome.answer, outcome.thinking) == ("", "so, hm")
    assert "only reasoning and no answer" in (outcome.error or "")
