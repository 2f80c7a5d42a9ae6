"""What happens, told to all who listen: kept once for all of them, and none can hold up another or be waited for."""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

KEPT_EVENTS = 1_000
"""How many events may be asked for again by one who lost its connection, or is behind."""

MOST_LISTENERS = 100

# int() refuses those that are very long.
_MOST_DIGITS = 18


class TooManyError(Exception):
    """No more can listen."""


class Hub:
    """Keeps the newest events, in the bytes of server-sent events, from which each listener takes what it misses.

    `epoch` tells the ids of this process from those of an earlier one.
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._count = 0
        self._kept: deque[bytes] = deque(maxlen=KEPT_EVENTS)
        self._listeners: set[Listener] = set()
        self._news = asyncio.Event()
        self.closed = False

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def publish(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell all who listen."""
        self._count += 1
        self._kept.append(self._event(kind, json.dumps(facts)))
        self._wake()

    @contextmanager
    def listening(self, last: str | None) -> "Iterator[Listener]":
        """One more listener; `last` is the id of the last event that it knows.

        What came after that is told first. Raises TooManyError where too many listen already.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise TooManyError
        listener = Listener(self, self._count if last is None else self._number(last))
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Tell all who listen that nothing more will come."""
        self.closed = True
        self._wake()

    async def since(self, number: int, seconds: float) -> tuple[int, bytes]:
        """The events after that of a number, and the number of the last; none if none comes within `seconds`.

        Where they are not all kept, an event `reset` says so in their place.
        """
        if number == self._count and not self.closed:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return number, b""
        missed = self._count - number
        if 0 <= missed <= len(self._kept):
            return self._count, b"".join(islice(self._kept, len(self._kept) - missed, None))
        return self._count, self._event("reset", "{}")

    def _wake(self) -> None:
        """Wake those who wait now; who comes later waits for the next news."""
        self._news.set()
        self._news = asyncio.Event()

    def _event(self, kind: str, data: str) -> bytes:
        # JSON has no line ends of its own.
        return f"id: {self._epoch}-{self._count}\nevent: {kind}\ndata: {data}\n\n".encode()

    def _number(self, last: str) -> int:
        """The number in an id; one that is surely not kept if it is of another process."""
        epoch, _, number = last.rpartition("-")
        is_ours = epoch == self._epoch and number.isdecimal() and len(number) <= _MOST_DIGITS
        return int(number) if is_ours else -1


class Listener:
    """One who listens, and what it knows."""

    def __init__(self, hub: Hub, known: int) -> None:
        self._hub = hub
        self._known = known

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._hub.closed

    async def next(self, seconds: float) -> bytes:
        """All events that it does not know; none if none comes within `seconds`, or it is over."""
        self._known, events = await self._hub.since(self._known, seconds)
        return events
