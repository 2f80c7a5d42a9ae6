"""A circuit breaker for one worker: who fails prompt after prompt is left alone, then tried with one request."""

from enum import StrEnum

PROMPTS_TO_OPEN = 3
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class BreakerState(StrEnum):
    """`half-open` lets one request through, whose outcome decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Closed until several prompts in a row have failed; open for a pause that doubles; then half-open.

    One prompt that fails again and again accuses itself, wherever it is tried; three that fail in a row, with no
    answer between them, accuse the worker. `now` is seconds on any one clock.
    """

    def __init__(self) -> None:
        self._failed: set[int] = set()
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until: float | None = None

    def state(self, now: float) -> BreakerState:
        """The state at `now`."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    @property
    def closed(self) -> bool:
        """Whether nothing is held against the worker."""
        return self._open_until is None

    def admits(self, in_flight: int, now: float) -> bool:
        """Whether another request may be sent while `in_flight` are."""
        match self.state(now):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                return in_flight == 0

    def succeeded(self) -> None:
        """The worker answered: close."""
        self._failed.clear()
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until = None

    def failed(self, prompt: int, now: float) -> None:
        """The worker broke the request for this prompt: open once enough of them have failed in a row."""
        self._failed.add(prompt)
        if self._open_until is not None or len(self._failed) >= PROMPTS_TO_OPEN:
            self._open(now)

    def refused(self, now: float) -> None:
        """The worker could not be reached at all: open at once."""
        self._open(now)

    def reopens_at(self) -> float | None:
        """When an open breaker lets a request through again; None if it is closed."""
        return self._open_until

    def opened_since(self, began: float) -> bool:
        """Whether it has opened after a request was sent that `began` then; one that tries the worker is sent later."""
        return self._open_until is not None and began < self._open_until

    def _open(self, now: float) -> None:
        if self._open_until is not None and now < self._open_until:
            return
        self._open_until = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
