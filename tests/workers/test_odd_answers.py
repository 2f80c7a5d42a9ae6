"""What a server may put into an answer that a database could not hold."""

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
