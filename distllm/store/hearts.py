"""What proves a coordinator alive to others that work the same database, and shares the workers among them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from distllm.store.tx import Tx


class LostError(Exception):
    """The coordinator is dead, as far as others can tell: it must end its requests, and begin anew."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a renewal has found: the workers that are this coordinator's, and those that it wants and are free.

    `owners` are the coordinators that have the workers, of all there are, None where one is free; `wanted` the workers
    that each coordinator wants. `dead` if there is somebody to bury.
    """

    ours: frozenset[int]
    free: tuple[int, ...]
    owners: Mapping[int, int | None]
    wanted: Mapping[int, frozenset[int]]
    dead: bool


class Heart(ABC):
    """The life of coordinator `id`. Who loses it is another coordinator afterwards."""

    id: int

    @abstractmethod
    def hear_loss(self, hear: Callable[[], object]) -> None:
        """Have `hear` called at the moment when it is lost."""

    @abstractmethod
    async def beat(self, workers: Collection[int], idle: Collection[int], busy_seconds: float) -> Beat:
        """Renew; all requests that are in flight, or are sent until the next time, end within `busy_seconds`.

        `workers` are those that this coordinator wants, and `idle` those that it gives back. Raises LostError if it is
        dead.
        """

    @abstractmethod
    async def take(self, workers: Collection[int]) -> frozenset[int]:
        """Make those of `workers` that are free this coordinator's; return these. Raises LostError."""

    @abstractmethod
    def bury(self, tx: Tx, now: float) -> int:
        """Take back what the dead have left; return how many have just been found dead."""

    @abstractmethod
    async def close(self) -> None:
        """End, and let others have what is left of it."""
