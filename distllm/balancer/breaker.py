"""A circuit breaker for one worker: what fails in a row is left alone, then tried with one request."""

from enum import StrEnum

FAILURES_TO_OPEN = 3
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class BreakerState(StrEnum):
    """`half-open` lets one request through, whose outcome decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Closed until failures come in a row; open for a pause that doubles; then half-open.

    `now` is seconds on any one clock.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until: float | None = None

    def state(self, now: float) -> BreakerState:
        """The state at `now`."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

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
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until = None

    def failed(self, now: float) -> None:
        """The worker broke a request: open once that happened often enough in a row."""
        self._failures += 1
        if self._open_until is not None or self._failures >= FAILURES_TO_OPEN:
            self._open(now)

    def refused(self, now: float) -> None:
        """The worker could not be reached at all: open at once."""
        self._open(now)

    def reopens_at(self) -> float | None:
        """When an open breaker lets a request through again; None if it is closed."""
        return self._open_until

    def _open(self, now: float) -> None:
        if self._open_until is not None and now < self._open_until:
            return
        self._open_until = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
