"""Single requests, by the official client: answered whole and streamed, through each kind of server."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import openai
import pytest

from distllm.dispatcher import direct
from distllm.domain.hours import Hours
from tests.fakes.behaviour import HANGS, Behaviour, Ending
from tests.fakes.server import FakeServer
from tests.service.conftest import SOON, opened
from tests.service.openai.conftest import CHAT, Program, program_of

ASKED: list[Any] = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why is that?"}]


async def whole(program: Program, **more: Any) -> Any:
    """One answer in one piece."""
    asked = {"model": "fake-model", "messages": ASKED} | more
    return await program.client.chat.completions.create(**asked)


async def streamed(program: Program, **more: Any) -> list[Any]:
    """The pieces of an answer."""
    return [each async for each in await whole(program, stream=True, **more)]


def said(pieces: list[Any]) -> tuple[str, str]:
    """The text of pieces, and the thinking."""
    deltas = [each.choices[0].delta for each in pieces if each.choices]
    text = "".join(delta.content or "" for delta in deltas)
    return text, "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)


async def test_a_question_is_answered_at_once(program: Program, server: FakeServer) -> None:
    answer = await whole(program, max_tokens=20, top_p=0.5)
    assert answer.choices[0].message.content == "Answer to: Why is that?"
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == ("chat.completion", "fake-model", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    [seen] = server.requests
    assert (seen.body["messages"], seen.body["top_p"], seen.body["max_tokens"]) == (ASKED, 0.5, 20)
    assert program.house.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_a_text_is_completed(program: Program) -> None:
    answer = await program.client.completions.create(model="fake-model", prompt="Go on", max_tokens=20)
    assert (answer.object, answer.choices[0].text) == ("text_completion", "Answer to: Go on")
    pieces = await program.client.completions.create(model="fake-model", prompt="Go on", stream=True)
    assert "".join([each.choices[0].text async for each in pieces]) == "Answer to: Go on"


@pytest.mark.parametrize("kind", ["llamacpp", "vllm", "plain", "lm_studio", "ollama"])
async def test_a_stream_comes_in_pieces_from_every_kind_of_server(db: Path, kind: str) -> None:
    async with FakeServer(kind=kind, context=100_000, seconds_per_token=0.02) as server:
        worker = {
            "id": "one",
            "type": kind if kind in ("lm_studio", "ollama") else "openai",
            "port": server.port,
            "model": server.model,
        }
        async with opened(db, server, workers=[worker]) as house:
            program = program_of(house)
            pieces = await streamed(program, stream_options={"include_usage": True})
            await program.client.close()
    assert said(pieces) == ("Answer to: Why is that?", "")
    assert len(pieces) > 6
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-1].choices == []
    assert pieces[-1].usage.completion_tokens > 0
    assert all(each.usage is None for each in pieces[:-1])
    assert len({each.id for each in pieces}) == 1


async def test_the_first_piece_comes_while_the_rest_is_written(program: Program, server: FakeServer) -> None:
    server.behave(Behaviour(answer="one two three", tokens=2, per_token=0.05, ending=Ending.HANG))
    async with asyncio.timeout(SOON):
        pieces = await whole(program, stream=True)
        texts = [(await anext(pieces)).choices[0].delta.content for _ in range(3)]
    assert texts == ["", "one", " two"]
    await pieces.close()
    await server.until(lambda: server.requests[0].ended == "disconnected", SOON)


async def test_thoughts_are_told_apart_from_the_answer(program: Program, server: FakeServer) -> None:
    text = "<think> Let me see. </think> It is so."
    server.behave(Behaviour(answer=text), Behaviour(answer=text, crumbs=3))
    message = (await whole(program)).choices[0].message
    assert (message.content, message.reasoning_content) == ("It is so.", "Let me see.")
    answer, thinking = said(await streamed(program))
    assert (answer, thinking.strip()) == ("It is so.", "Let me see.")


async def test_whoever_leaves_ends_the_request_to_the_worker_and_that_is_no_mistake(
    program: Program, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "distllm.service")
    server.behave(HANGS)
    asking = asyncio.create_task(whole(program))
    await server.until(lambda: len(server.requests) == 1, SOON)
    asking.cancel()
    await server.until(lambda: server.requests[0].ended == "disconnected", SOON)
    await server.until(lambda: any(CHAT in each for each in caplog.messages), SOON)
    assert "whoever asked has left" in caplog.messages
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_worker_that_fails_is_followed_by_another_before_the_first_token_and_not_after(db: Path) -> None:
    async with (
        FakeServer(context=100_000) as one,
        FakeServer(context=100_000) as other,
        opened(db, one, other) as house,
    ):
        program = program_of(house, max_retries=0)
        for server in (one, other):
            server.behave(Behaviour(reset=True))
        with pytest.raises(openai.InternalServerError):
            await whole(program)
        assert (len(one.requests), len(other.requests)) == (1, 1)
        one.behave_always(Behaviour(reset=True))
        for _ in range(4):
            assert said(await streamed(program))[0] == "Answer to: Why is that?"
        one.behave_always(Behaviour(answer="one two three", tokens=2, ending=Ending.ABORT))
        other.behave_always(Behaviour(answer="one two three", tokens=2, ending=Ending.ABORT))
        before = len(one.requests) + len(other.requests)
        with pytest.raises(openai.APIError):
            await streamed(program)
        assert len(one.requests) + len(other.requests) == before + 1
        await program.client.close()


async def test_what_no_window_holds_is_refused_with_the_figures(db: Path) -> None:
    async with FakeServer(context=500) as server, opened(db, server) as house:
        program = program_of(house)
        for more in ({}, {"stream": True}):
            with pytest.raises(openai.BadRequestError, match="500 tokens") as refused:
                await whole(program, max_tokens=490, **more)
            assert refused.value.code == "context_length_exceeded"
        assert server.requests == []
        await program.client.close()


async def test_an_answer_to_less_than_was_sent_is_none(db: Path) -> None:
    async with FakeServer(context=100_000) as server, opened(db, server) as house:
        program = program_of(house, max_retries=0)
        server.behave_always(Behaviour(prompt_share=0.2))
        question: list[Any] = [{"role": "user", "content": "word " * 200}]
        with pytest.raises(openai.InternalServerError, match="cut the text") as refused:
            await whole(program, messages=question)
        assert refused.value.status_code == 502
        with pytest.raises(openai.APIError, match="cut the text"):
            await streamed(program, messages=question)
        await program.client.close()


async def test_too_many_at_once_are_told_to_come_later(
    program: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_WAITING", 1)
    server.behave(HANGS)
    asking = asyncio.create_task(whole(program))
    await server.until(lambda: len(server.requests) == 1, SOON)
    impatient = program.client.with_options(max_retries=0)
    with pytest.raises(openai.RateLimitError):
        await impatient.chat.completions.create(model="fake-model", messages=ASKED)
    asking.cancel()


async def test_outside_of_the_hours_a_question_is_answered_and_a_batch_waits(db: Path) -> None:
    async with FakeServer(context=100_000) as server, opened(db, server, hours=_other_hours()) as house:
        program = program_of(house)
        assert (await whole(program)).choices[0].message.content == "Answer to: Why is that?"
        await program.client.close()


def _other_hours() -> Hours:
    from datetime import datetime, timedelta

    now = datetime.now().astimezone()
    return Hours.parse(f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hello."}]}, "messages"),
        ({"messages": [{"role": "user", "content": "Hello.", "name": "Ann"}]}, "messages"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_never_left_out(
    program: Program, server: FakeServer, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await whole(program, **more)
    assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    assert server.requests == []


async def test_models_are_those_that_the_fleet_has(program: Program) -> None:
    assert [model.id async for model in program.client.models.list()] == ["fake-model"]
    assert (await program.client.models.retrieve("fake-model")).object == "model"
    with pytest.raises(openai.NotFoundError):
        await program.client.models.retrieve("gpt-9")
    with pytest.raises(openai.NotFoundError, match="no worker has the model gpt-9") as refused:
        await whole(program, model="gpt-9")
    assert refused.value.code == "model_not_found"


async def test_where_nobody_answers_it_is_said(early: Program) -> None:
    early.client.max_retries = 0
    with pytest.raises(openai.InternalServerError) as refused:
        await whole(early)
    assert refused.value.status_code == 503
    assert [model.id async for model in early.client.models.list()] == []


async def test_the_key_of_a_client_is_the_token_of_the_service(db: Path, server: FakeServer) -> None:
    token = "a-token-that-is-long-enough-for-that"
    async with opened(db, server, token=token) as house:
        client = openai.AsyncOpenAI(base_url=f"{house.service.url}/v1", api_key=token)
        assert [model.id async for model in client.models.list()] == ["fake-model"]
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="another").models.list()
        await client.close()
