"""A time limit that knows whether this process was there when its time came."""

import asyncio

import pytest

from distllm.workers.deadline import Deadline
from tests.dispatcher.movable import MovableLoop, run_movable


def test_it_ends_its_block_in_time() -> None:
    async def story(loop: MovableLoop) -> None:
        with pytest.raises(TimeoutError):
            async with Deadline(loop.time() + 0.05) as deadline:
                await asyncio.Event().wait()
        assert deadline.expired()

    run_movable(story)


def test_it_leaves_a_block_alone_that_ends_sooner_or_that_is_given_more_time() -> None:
    async def story(loop: MovableLoop) -> None:
        async with Deadline(loop.time() + 0.05) as deadline:
            deadline.reschedule(loop.time() + 100.0)
            await asyncio.sleep(0.1)
            deadline.reschedule(None)
        assert not deadline.expired()

    run_movable(story)


@pytest.mark.parametrize("first", [0.02, 100.0])
def test_it_ends_its_block_when_it_was_said_last(first: float) -> None:
    async def wait(deadline: Deadline, *ends: float) -> None:
        async with deadline:
            for end in ends:
                deadline.reschedule(end)
            await asyncio.Event().wait()

    async def story(loop: MovableLoop) -> None:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await wait(Deadline(began + first), began + 50.0, began + 0.1, began + 0.2)
        assert 0.2 <= loop.time() - began < 50.0

    run_movable(story)


def test_what_came_in_while_the_process_was_absent_is_read_first() -> None:
    async def story(loop: MovableLoop) -> None:
        came = asyncio.Event()
        async with Deadline(loop.time() + 10.0) as deadline:
            loop.advance(3600.0)
            loop.call_later(0.1, came.set)
            await came.wait()
            deadline.reschedule(None)
        assert not deadline.expired()

    run_movable(story)


def test_what_was_read_before_its_time_was_looked_at_leaves_time_for_the_rest() -> None:
    async def story(loop: MovableLoop) -> None:
        end = loop.time() + 10.0
        async with Deadline(end) as deadline:
            loop.advance(3600.0)
            deadline.reschedule(end)
            await asyncio.sleep(0.1)
            deadline.reschedule(None)
        assert not deadline.expired()

    run_movable(story)


def test_where_nothing_came_in_it_ends_its_block_a_moment_later() -> None:
    async def story(loop: MovableLoop) -> None:
        async with Deadline(loop.time() + 10.0):
            loop.advance(3600.0)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run_movable(story)


def test_who_drips_for_ever_is_given_that_moment_once() -> None:
    async def story(loop: MovableLoop) -> None:
        end = loop.time() + 10.0
        async with Deadline(end) as deadline:
            for _ in range(50):
                loop.advance(3600.0)
                deadline.reschedule(end)
                await asyncio.sleep(0.05)

    with pytest.raises(TimeoutError):
        run_movable(story)


def test_an_error_in_its_block_is_its_own() -> None:
    async def story(loop: MovableLoop) -> None:
        with pytest.raises(KeyError):
            async with Deadline(loop.time() + 10.0):
                raise KeyError

    run_movable(story)
