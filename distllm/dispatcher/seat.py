"""One request at a time of a worker."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from distllm.balancer.concurrency import Sent
from distllm.dispatcher.stoppable import Stoppable
from distllm.store.leases import Group, Lease


@dataclass(slots=True, eq=False)
class Seat:
    """One request that a worker may have in flight, and the leases that follow it.

    `cached` is the reading that it was sent last, maybe by another coordinator, and that its worker may have cached.
    `place` is which of the seats it is: those that come first are the last to be closed.
    `began` is when the request in flight was sent, by the clock's ticks, and `reads` the tokens that it reads first;
    it is `fresh` if its worker was never sent the reading before. `sent` is what its end is told with.
    """

    place: int
    cached: int | None = None
    began: float = 0.0
    reads: int = 0
    fresh: bool = False
    sent: Sent | None = None
    group: Group | None = None
    leases: deque[Lease] = field(default_factory=deque)
    current: Lease | None = None
    task: asyncio.Task[None] | None = None
    request: Stoppable | None = None

    @property
    def reading(self) -> int | None:
        """What its worker has cached for it."""
        return self.cached if self.group is None else self.group.reading_id

    def forget(self) -> None:
        """Its server has gone, and what it had cached with it."""
        self.cached = None
        if not self.leases:
            self.group = None

    @property
    def wanting(self) -> bool:
        """Whether nothing unsent is left for it."""
        return not self.leases
