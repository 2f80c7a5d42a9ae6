"""How many seats of a worker are of use: found by trying fewer and more of them, one window of answers at a time.

Speeds are work a second of the whole worker, in any one unit. Only those that were measured one after the other are
compared: what a machine does beside drifts more in an hour than a seat changes.
"""

from enum import Enum, auto

WORTH_MORE = 0.03
"""What more seats must gain, as a share of the speed. Fewer must lose nothing, so noise moves nobody to and fro."""

HOPELESS = 0.7
"""The share of the speed before it at which a trial need not go on to the end of its window."""

FIRST_WAIT, LATER_WAIT, LONGEST_WAIT = 1, 4, 32
"""Windows before the first trial, where nothing is known and where something is, and the most between later ones."""


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
        self._together = limit
        self._jumps, self._jumping = True, False
        self._speed: float | None = None
        self._due = FIRST_WAIT if known is None else LATER_WAIT
        self._wait = 2 * FIRST_WAIT if known is None else LATER_WAIT

    @property
    def seats(self) -> int:
        """How many to use now: another number than the settled one during a trial."""
        return self.settled if self._trial is None else self._trial

    def measured(self, speed: float, together: int) -> None:
        """Take in a window in which `seats` were at work all the time: its speed, and how many wrote together at most.

        Where fewer wrote than were asked, the others may have waited for one of so few slots: that many are tried next.
        """
        if self._trial is not None:
            self._judge(self._trial, speed)
            return
        self._speed = speed if self._speed is None else (self._speed + speed) / 2
        self._together = together
        self._due -= 1
        if self._due <= 0:
            self._try()

    def hopeless(self, speed: float) -> bool:
        """Whether a trial is decided by its speed so far."""
        return self._trial is not None and self._speed is not None and speed < HOPELESS * self._speed

    def start_anew(self) -> None:
        """Compare nothing with what was measured so far: it was another's work, or something disturbed it."""
        self._speed = None
        if self._trial is not None:
            self._trial = None
            self._rest()

    def _judge(self, trial: int, speed: float) -> None:
        assert self._speed is not None
        least = self._speed * (1 + WORTH_MORE) if trial > self.settled else self._speed
        self._trial, self.has_tried = None, True
        if speed < least:
            if self._jumping:
                # They did not wait for slots: the server, or a proxy before it, sends its answers whole.
                self._jumps = False
            else:
                self._turn()
            self._rest()
            return
        back = self._moved not in (None, self._move)
        self.settled, self._speed, self._moved, self._together = trial, speed, self._move, trial
        if back:
            self._rest()
        else:
            self._try()

    def _rest(self) -> None:
        self._due = self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _turn(self) -> None:
        self._move = _Move.MORE if self._move is _Move.FEWER else _Move.FEWER

    def _try(self) -> None:
        if self.settled == (1 if self._move is _Move.FEWER else self._limit):
            self._turn()
        step = max(1, self.settled // 4)
        self._jumping = self._jumps and self._move is _Move.FEWER and 1 <= self._together < self.settled
        if self._jumping:
            self._trial = self._together
        elif self._move is _Move.FEWER:
            self._trial = max(1, self.settled - step)
        else:
            self._trial = min(self._limit, self.settled + step)
