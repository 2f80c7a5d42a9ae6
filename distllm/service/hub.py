"""What happens, told at once to all who listen: nobody can hold it up, and who reads too slowly is cut off."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KEPT_EVENTS = 1_000
"""How many events may be asked for again by one who lost its connection."""

MOST_WAITING = 256
"""How many events may wait for one listener before it is too slow."""

MOST_LISTENERS = 100


@dataclass(frozen=True, slots=True)
class Told:
    """One event: its id, its kind, and its facts as JSON."""

    id: str
    kind: str
    data: str


class TooManyError(Exception):
    """No more can listen."""


class Listener:
    """One who listens. `lost` if it was too slow, `over` if nothing more will come; `on_lost` is called at once."""

    def __init__(self) -> None:
        self.on_lost: Callable[[], object] = lambda: None
        self._waiting: deque[Told] = deque()
        self._changed = asyncio.Event()
        self.lost = False
        self.over = False

    def tell(self, told: Told) -> None:
        """Let an event wait, unless too many do."""
        if len(self._waiting) >= MOST_WAITING:
            self.lost = True
            self.on_lost()
        else:
            self._waiting.append(told)
        self._changed.set()

    def end(self) -> None:
        """Nothing more will come."""
        self.over = True
        self._changed.set()

    async def next(self, seconds: float) -> list[Told]:
        """The events that wait; none if none comes within `seconds`, or the listener is `lost` or it is `over`."""
        if not (self._waiting or self.lost or self.over):
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return []
        self._changed.clear()
        waiting = [] if self.lost else list(self._waiting)
        self._waiting.clear()
        return waiting


class Hub:
    """Gives events to listeners. `epoch` tells the ids of this process from those of an earlier one."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._count = 0
        self._kept: deque[Told] = deque(maxlen=KEPT_EVENTS)
        self._listeners: set[Listener] = set()
        self._closed = False

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def publish(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell all who listen."""
        self._count += 1
        told = Told(f"{self._epoch}-{self._count}", kind, json.dumps(facts))
        self._kept.append(told)
        for listener in self._listeners:
            listener.tell(told)

    @contextmanager
    def listening(self, last: str | None) -> Iterator[Listener]:
        """One more listener; `last` is the id of the last event that it knows.

        What came after that is told first. Where that is not kept any more, an event `reset` says so. Raises
        TooManyError where too many listen already.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise TooManyError
        listener = Listener()
        for told in self._missed(last):
            listener.tell(told)
        if self._closed:
            listener.end()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Tell all who listen that nothing more will come."""
        self._closed = True
        for listener in self._listeners:
            listener.end()

    def _missed(self, last: str | None) -> list[Told]:
        if last is None:
            return []
        reset = Told(f"{self._epoch}-{self._count}", "reset", "{}")
        epoch, _, number = last.rpartition("-")
        if epoch != self._epoch or not number.isdecimal() or int(number) > self._count:
            return [reset]
        missed = self._count - int(number)
        if missed > len(self._kept) or missed > MOST_WAITING:
            return [reset]
        return list(self._kept)[len(self._kept) - missed :]
