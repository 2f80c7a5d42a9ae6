"""Something that a task waits for, and that others may stop while the task itself goes on."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Stoppable:
    """As a task of its own that can be cancelled, but without the cost of one; good for one wait."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the wait was told to end."""
        return self._stopped

    def stop(self) -> None:
        """End the wait, if there is one."""
        if self._task is not None and not self._stopped:
            self._stopped = True
            self._task.cancel()

    async def wait(self, awaited: Awaitable[T]) -> T | None:
        """What `awaited` gives; None if it was stopped. To cancel the waiting task itself cancels both."""
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            result = await awaited
        except asyncio.CancelledError:
            if not self._stopped or task.uncancel() > 0:
                raise
            return None
        else:
            if self._stopped:
                task.uncancel()
            return result
        finally:
            self._task = None
