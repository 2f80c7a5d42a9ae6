"""An event loop whose clock a test moves on, so that minutes of silence take none."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class MovableLoop(asyncio.SelectorEventLoop):
    """A loop whose time is the machine's and what `advance` has added. Sockets and threads are as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._added = 0.0

    def time(self) -> float:
        """Seconds on the clock of all waits and time limits."""
        return super().time() + self._added

    def advance(self, seconds: float) -> None:
        """Let `seconds` have gone by: what was due within them is done at the loop's next turn."""
        self._added += seconds


def run_movable(story: Callable[[MovableLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a story on a loop that it can move on."""
    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, MovableLoop)
        runner.run(story(loop))
