"""How many seats of a worker are of use: found by trying fewer and more of them, one window of answers at a time.

Only windows that were measured one after the other are compared: what a machine does beside drifts more in an hour
than a seat changes.
"""

from dataclasses import dataclass
from enum import Enum, auto

WORTH_MORE = 0.03
"""What more seats must gain, as a share of the speed. Fewer must lose nothing, so noise moves nobody to and fro."""

HOPELESS = 0.7
"""The share of the speed before it at which a trial need not go on to the end of its window."""

FIRST_WAIT, LATER_WAIT, LONGEST_WAIT = 1, 4, 32
"""Windows before the first trial, where nothing is known and where something is, and the most between later ones."""

PRICES = (0.03, 0.15)
"""What a token read costs beside one written is between these on most machines, and grows with how many are written at
once. No two windows read and wrote in the same proportion, so a verdict must hold at both prices.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What a worker did in `seconds` with all its seats at work: tokens read, were each paper read once, and written.

    `together` is how many answers it wrote at once, at most.
    """

    read: float
    written: float
    seconds: float
    together: int

    def speed(self, price: float) -> float:
        """Its work a second, counted in tokens written."""
        return (self.written + price * self.read) / self.seconds

    def followed_by(self, other: "Window") -> "Window":
        """Both as one, in which the older one counts half."""
        return Window(
            self.read / 2 + other.read,
            self.written / 2 + other.written,
            self.seconds / 2 + other.seconds,
            other.together,
        )


class _Move(Enum):
    FEWER = auto()
    MORE = auto()


class Climb:
    """Starts from `known`, what was found before, else from `limit`; then tries fewer and more seats in turn.

    Ever more rarely, but without an end, since servers change. `settled` is the number found best so far; `has_tried`
    says whether it was found, here or before.
    """

    def __init__(self, limit: int, known: int | None = None) -> None:
        self.settled = limit if known is None else max(1, min(limit, known))
        self.has_tried = known is not None
        self._limit = limit
        self._trial: int | None = None
        self._move = _Move.FEWER if known is None else _Move.MORE
        self._moved: _Move | None = None
        self._jumps, self._jumping = True, False
        self._before: Window | None = None
        self._due = FIRST_WAIT if known is None else LATER_WAIT
        self._wait = 2 * FIRST_WAIT if known is None else LATER_WAIT

    @property
    def seats(self) -> int:
        """How many to use now: another number than the settled one during a trial."""
        return self.settled if self._trial is None else self._trial

    def measured(self, window: Window) -> None:
        """Take in a window with `seats` at work.

        Where fewer were written than asked for at once, the others may have waited for one of so few slots: that many
        are tried next.
        """
        if self._trial is not None:
            self._judge(self._trial, window)
            return
        self._before = window if self._before is None else self._before.followed_by(window)
        self._due -= 1
        if self._due <= 0:
            self._try(self._before.together)

    def hopeless(self, window: Window) -> bool:
        """Whether a trial is decided by its window so far."""
        return self._trial is not None and max(self._gains(window)) < HOPELESS

    def start_anew(self) -> None:
        """Compare nothing with what was measured so far: it was another's work, or something disturbed it."""
        self._before = None
        if self._trial is not None:
            self._trial = None
            self._rest()

    def _gains(self, window: Window) -> list[float]:
        """How many times as fast it is as what was before, if reading is cheap, and if it is dear."""
        assert self._before is not None
        return [window.speed(price) / self._before.speed(price) for price in PRICES]

    def _judge(self, trial: int, window: Window) -> None:
        least = 1 + WORTH_MORE if trial > self.settled else 1.0
        self._trial, self.has_tried = None, True
        if min(self._gains(window)) < least:
            if self._jumping:
                # They did not wait for slots: the server, or a proxy before it, sends its answers whole.
                self._jumps = False
            else:
                self._turn()
            self._rest()
            return
        back = self._moved not in (None, self._move)
        self.settled, self._before, self._moved = trial, window, self._move
        if back:
            self._rest()
        else:
            self._try(window.together)

    def _rest(self) -> None:
        self._due = self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _turn(self) -> None:
        self._move = _Move.MORE if self._move is _Move.FEWER else _Move.FEWER

    def _try(self, together: int) -> None:
        if self.settled == (1 if self._move is _Move.FEWER else self._limit):
            self._turn()
        step = max(1, self.settled // 4)
        self._jumping = self._jumps and self._move is _Move.FEWER and 1 <= together < self.settled
        if self._jumping:
            self._trial = together
        elif self._move is _Move.FEWER:
            self._trial = max(1, self.settled - step)
        else:
            self._trial = min(self._limit, self.settled + step)
