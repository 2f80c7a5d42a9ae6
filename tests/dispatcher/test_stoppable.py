"""A wait that others may stop: the task that waits goes on, unless it is cancelled itself."""

import asyncio

import pytest

from distllm.dispatcher.stoppable import Stoppable


async def waiting(stoppable: Stoppable, event: asyncio.Event) -> list[object]:
    """Wait, and then wait for something else under a time limit, which a cancellation left over would disturb."""
    found: list[object] = [await stoppable.wait(event.wait())]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    return found


@pytest.fixture
def event() -> asyncio.Event:
    return asyncio.Event()


async def begun(stoppable: Stoppable, event: asyncio.Event) -> "asyncio.Task[list[object]]":
    task = asyncio.create_task(waiting(stoppable, event))
    await asyncio.sleep(0)
    return task


async def test_what_is_waited_for_is_given(event: asyncio.Event) -> None:
    task = await begun(Stoppable(), event)
    event.set()
    assert await task == [True]


async def test_a_stop_ends_the_wait_and_not_the_task_however_often_it_is_said(event: asyncio.Event) -> None:
    stoppable = Stoppable()
    task = await begun(stoppable, event)
    stoppable.stop()
    stoppable.stop()
    assert await task == [None]
    assert task.cancelling() == 0


async def test_a_stop_before_and_after_the_wait_stops_nothing(event: asyncio.Event) -> None:
    stoppable = Stoppable()
    stoppable.stop()
    event.set()
    task = await begun(stoppable, event)
    stoppable.stop()
    assert await task == [True]


async def test_who_cancels_the_task_cancels_it_also_where_it_is_stopped(event: asyncio.Event) -> None:
    stoppable = Stoppable()
    task = await begun(stoppable, event)
    stoppable.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_cancelled_was_not_stopped(event: asyncio.Event) -> None:
    task = await begun(Stoppable(), event)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_answers_in_spite_of_the_stop_has_answered() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "an answer"
        raise AssertionError

    async def ask(stoppable: Stoppable) -> tuple[str | None, int]:
        answer = await stoppable.wait(stubborn())
        task = asyncio.current_task()
        assert task is not None
        return answer, task.cancelling()

    stoppable = Stoppable()
    task = asyncio.create_task(ask(stoppable))
    await asyncio.sleep(0)
    stoppable.stop()
    assert await task == ("an answer", 0)
