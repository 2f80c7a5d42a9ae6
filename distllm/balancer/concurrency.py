"""How many requests one worker is sent at a time.

A server that tells its slots is believed. Where it does not, more requests than it has slots wait in its queue without
a sign, and each of them may push out of its cache the paper that another is asked about. So the seats that are
configured are a limit, and `Climb` finds how many of them are of use.

Limits: one number stands for all models of a worker, and it takes dozens of answers until fewer seats are tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from distllm.balancer.climb import Climb, Window

MOST_SEATS = 1024
"""Seats of one worker, whatever is configured and told."""

ANSWERS, ANSWERS_A_SEAT = 10, 6
"""How many answers make a window, in all and of each seat: about several papers, so that a long one does not decide."""

FEWEST_A_SEAT = 3
"""Answers of each seat before a trial can be found hopeless."""

FIRST_REST, LONGEST_REST = 2, 64
"""Answers of each seat before one more is used, after the server was too busy: twice as many each time."""

IDLE_SHARE = 0.1
"""Of the seats, how many may be idle while all are said to be at work."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request when it was sent: its number, the time, and the seconds that all seats had been at work until then."""

    number: int
    at: float
    seat_seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """What an answer was of use for: tokens that had to be read for it, were each paper read once, and tokens written.

    `writing` is how many seconds it came for after its first token.
    """

    model: str
    read: int
    written: int
    writing: float


class Concurrency:
    """The seats of one worker: `limit` as configured, None to believe the server, or one; `known` from other runs.

    It is told of every request, when it is sent and when it ends, in seconds of any one clock. An answer says how
    fast its seat went while so many others were at work; all of them say how fast the worker is, wherever a window
    begins and ends. Only answers with all seats at work count, so that want of work is not taken for slowness.
    """

    def __init__(self, limit: int | None, known: int | None = None) -> None:
        self._limit = limit = None if limit is None else min(limit, MOST_SEATS)
        self._told: int | None = None
        self._trials = Climb(limit, known) if limit is not None and limit > 1 else None
        self._left: int | None = None
        self._rest = 0
        self._sent = self._sent_when_busy = self._in_flight = 0
        self._seat_seconds = self._at = 0.0
        self._model: str | None = None
        self._renew()

    @property
    def most(self) -> int:
        """The seats that may exist at all."""
        if self._told is None:
            return self._limit or 1
        return self._told if self._limit is None else min(self._limit, self._told)

    @property
    def allowed(self) -> int:
        """The seats that may take something new."""
        return self._wanted if self._left is None else min(self._left, self._wanted)

    @property
    def finishing(self) -> int:
        """The seats that may send what they hold: one that is closed for a trial ends its paper, not to be read twice.

        A server that is too busy is asked nothing more on those.
        """
        return self.most if self._left is None else self.allowed

    @property
    def useful(self) -> int | None:
        """The seats that were found to be of use; None where the server tells its slots, or nothing was tried."""
        climb = self._climb
        return climb.settled if climb is not None and climb.has_tried else None

    @property
    def _climb(self) -> Climb | None:
        return self._trials if self._told is None else None

    @property
    def _wanted(self) -> int:
        return self.most if self._climb is None else self._climb.seats

    def told(self, slots: int | None) -> None:
        """Take in what the server says of its slots; None if it says nothing, which takes nothing back."""
        if slots is not None and slots != self._told:
            self._told = max(1, min(slots, MOST_SEATS))
            self._renew()

    def sent(self, now: float) -> Sent:
        """A request is sent; its end is told with what this returns."""
        self._pass(now)
        self._in_flight += 1
        self._sent += 1
        return Sent(self._sent, now, self._seat_seconds)

    def ended(self, sent: Sent, now: float, work: Work | None) -> None:
        """A request has ended, with the work of an answer, or None without one."""
        self._pass(now)
        self._in_flight -= 1
        if work is None:
            return
        if work.model != self._model:
            self._start_anew_with(work.model)
        seconds, at_work = now - sent.at, self._seat_seconds - sent.seat_seconds
        if seconds <= 0 or not self._saturated(at_work / seconds):
            return
        self._answers += 1
        self._read += work.read
        self._written += work.written
        # Its share of the time that all seats passed together.
        self._seconds += seconds * seconds / at_work
        self._writing.append((now - work.writing, now))
        if self._left is not None:
            self._recover(self._left)
        elif self._answers >= ANSWERS + ANSWERS_A_SEAT * self.allowed or self._hopeless():
            self._end_window()

    def busy(self, sent: Sent) -> None:
        """The server was too busy for a request: use half the seats, once for all that had been sent until now."""
        if sent.number <= self._sent_when_busy:
            return
        self._sent_when_busy = self._sent
        before = self.allowed
        if self._climb is not None:
            self._climb.start_anew()
        # A trial of more seats that ends is a step down already.
        if self.allowed >= before:
            self._left = (before + 1) // 2
            self._rest = min(max(FIRST_REST, 2 * self._rest), LONGEST_REST)
        self._renew()

    def _saturated(self, in_flight: float) -> bool:
        """Whether so many requests, on the mean, are all seats at work: between two of them a seat is idle shortly."""
        return abs(in_flight - self.allowed) <= max(0.5, IDLE_SHARE * self.allowed)

    def _recover(self, left: int) -> None:
        if self._answers < self._rest * left:
            return
        self._left = left + 1 if left + 1 < self._wanted else None
        self._renew()

    def _hopeless(self) -> bool:
        if self._climb is None or self._answers < FEWEST_A_SEAT * self.allowed:
            return False
        # Asked at every answer of a trial: who wrote at once takes longer to find out, and does not matter here.
        return self._climb.hopeless(self._window(together=0))

    def _end_window(self) -> None:
        window = self._window(most_at_once(self._writing))
        self._rest = 0
        self._renew()
        if self._climb is not None:
            self._climb.measured(window)

    def _window(self, together: int) -> Window:
        return Window(self._read, self._written, self._seconds, together)

    def _start_anew_with(self, model: str) -> None:
        """What another model did is not compared with this one's."""
        if self._model is not None and self._climb is not None:
            self._climb.start_anew()
        self._model = model
        self._renew()

    def _renew(self) -> None:
        self._answers = self._read = self._written = 0
        self._seconds = 0.0
        self._writing: list[tuple[float, float]] = []

    def _pass(self, now: float) -> None:
        self._seat_seconds += self._in_flight * (now - self._at)
        self._at = now


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """The most of these spans of time that overlap."""
    steps = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
    return max(accumulate(step for _, step in steps), default=0)
