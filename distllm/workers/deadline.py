"""A time limit on a server that does not charge it for this process's own absence."""

import asyncio
import math
from types import TracebackType
from typing import Self

ABSENT_SECONDS = 0.25
"""A loop that comes to a time limit so late was not busy: its process was stopped, or its machine slept."""

READ_SECONDS = 0.5
"""What it is then given to read what came in meanwhile."""


class Deadline:
    """Ends its block at a time on the loop's clock, as `asyncio.timeout_at` does.

    Where the process was absent when the time came, it reads what the server has sent meanwhile first; once,
    so that nobody can go on for ever.
    """

    def __init__(self, when: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._when: float | None = when
        self._timer: asyncio.TimerHandle | None = None
        self._excused = False
        self._not_before = -math.inf

    def expired(self) -> bool:
        """Whether it ended its block."""
        return self._timeout.expired()

    def reschedule(self, when: float | None) -> None:
        """End the block at another time, or not at all."""
        now = self._loop.time()
        self._excuse(now)
        self._when = None if when is None else max(when, self._not_before, now)
        # A later end leaves the timer as it is, since most ends are put off many times before one comes.
        if self._timer is not None and (self._when is None or self._when < self._timer.when()):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._when is not None:
            self._timer = self._loop.call_at(self._when, self._due)

    def _excuse(self, now: float) -> None:
        if self._timer is None or self._when is None or self._excused:
            return
        if now - self._when > ABSENT_SECONDS:
            self._excused, self._not_before = True, now + READ_SECONDS

    def _due(self) -> None:
        assert self._when is not None
        now = self._loop.time()
        self._excuse(now)
        self._timer = None
        if now < max(self._when, self._not_before):
            self.reschedule(self._when)
        else:
            self._timeout.reschedule(now)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.reschedule(self._when)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reschedule(None)
        await self._timeout.__aexit__(kind, error, trace)
