"""What a server may put into an answer that a database could not hold."""

import pytest

from distllm.domain.models import Call, Limits, WorkerSpec, WorkerType
from distllm.domain.tokens import estimate_tokens
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


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{n}.1 Introduction {'.' * 70} {n * 7}" for n in range(60)),
        ("=" * 60 + "\nHeading\n" + "=" * 60 + "\n\nSome text here.\n\n") * 20,
        "Методика эксперимента описана в предыдущей работе авторов. " * 30,
    ],
    ids=["contents page", "rulings", "russian"],
)
async def test_rows_of_dots_and_foreign_words_are_not_called_cut(text: str) -> None:
    real_share = {"Intro": 0.28, "====": 0.15, "Метод": 0.4}[next(k for k in ("Intro", "====", "Метод") if k in text)]
    async with FakeServer(context=100_000) as server, open_session() as session:
        spec = WorkerSpec(name="w", type=WorkerType.OPENAI, host=server.host, port=server.port)
        upper = estimate_tokens(text)
        body = {
            "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": int(real_share * upper), "completion_tokens": 1},
        }
        server.behave(Behaviour(body=body))
        call = Call("fake-model", text, "What?", max_tokens=50, temperature=0.0, tokens=upper)
        outcome = await make_worker(spec, session).ask(call, Limits(5, 5, 5))
    assert outcome.error_class is None, outcome.error
