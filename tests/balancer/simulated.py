"""A server in simulated time: slots that each keep one paper, a queue without a sign, one reading at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from distllm.balancer.concurrency import Concurrency, Sent, Work

QUESTION = 50
SHARE_OF_READING = 0.6
"""Of the machine, while others write."""


@dataclass(frozen=True)
class Paper:
    """Tokens to read, and of each answer about it."""

    tokens: int
    answers: tuple[int, ...]


def shelf(count: int, seed: int, questions: int = 5) -> list[Paper]:
    """Papers of 4,000 to 40,000 tokens."""
    rng = Random(seed)
    return [
        Paper(
            int(min(40_000, max(4_000, rng.lognormvariate(9.2, 0.6)))),
            tuple(rng.randint(40, 300) for _ in range(questions)),
        )
        for _ in range(count)
    ]


@dataclass
class Server:
    """Reads `prefill` tokens a second, and writes `decode` a second, times `gain` of how many it writes for."""

    slots: int
    gain: Callable[[int], float]
    prefill: float = 1000.0
    decode: float = 40.0


@dataclass(eq=False)
class _Request:
    seat: int
    paper: int
    read: int
    writes: int
    sent: Sent
    slot: int = -1
    writing_since: float | None = None
    left: float = 0.0


@dataclass
class Fleet:
    """One worker with the seats that `concurrency` allows it: each goes on with its paper, as in the dispatcher."""

    server: Server
    concurrency: Concurrency
    model: str = "m"
    now: float = 0.0
    answers: int = 0
    most: int = 0
    _seats: dict[int, tuple[int, list[int]]] = field(default_factory=dict)
    _asked: dict[int, _Request] = field(default_factory=dict)
    _queue: list[_Request] = field(default_factory=list)
    _running: list[_Request] = field(default_factory=list)

    def work(self, papers: Sequence[Paper]) -> float:
        """Answer all of them; return how long it took."""
        began, self._waiting = self.now, list(enumerate(papers))
        self._papers = papers
        cached: dict[int, int] = {}
        free = list(range(self.server.slots))
        while True:
            for seat in range(self.concurrency.most):
                self._send(seat)
            self.most = max(self.most, len(self._asked))
            while self._queue and free:
                request = self._queue.pop(0)
                # The slot that has its paper, else the one unused for longest.
                slot = next((each for each in free if cached.get(each) == request.paper), free[0])
                free.remove(slot)
                request.slot, request.left = slot, QUESTION
                if cached.get(slot) != request.paper:
                    request.left += papers[request.paper].tokens
                    cached[slot] = request.paper
                self._running.append(request)
            if not self._running:
                return self.now - began
            for request in self._pass():
                free.append(request.slot)

    def _send(self, seat: int) -> None:
        if seat in self._asked:
            return
        held = self._seats.get(seat)
        read = 0
        if held is None or not held[1] or seat >= self.concurrency.finishing:
            if seat >= self.concurrency.allowed or not self._waiting:
                return
            number, paper = self._waiting.pop(0)
            held = self._seats[seat] = (number, list(paper.answers))
            read = paper.tokens
        request = _Request(seat, held[0], read, held[1].pop(0), self.concurrency.sent(self.now))
        self._asked[seat] = request
        self._queue.append(request)

    def _pass(self) -> list[_Request]:
        """Until the next request is read or written; those that are written."""
        reading = [each for each in self._running if each.writing_since is None]
        writing = [each for each in self._running if each.writing_since is not None]
        share = (SHARE_OF_READING if writing else 1.0) if reading else 0.0
        rates = {id(reading[0]): share * self.server.prefill} if reading else {}
        if writing:
            each_writes = (1 - share) * self.server.decode * self.server.gain(len(writing)) / len(writing)
            rates |= {id(request): each_writes for request in writing}
        passed = min(each.left / rates[id(each)] for each in self._running if id(each) in rates)
        self.now += passed
        done = []
        for request in reading[:1] + writing:
            request.left -= passed * rates[id(request)]
            if request.left > 1e-6:
                continue
            if request.writing_since is None:
                request.writing_since, request.left = self.now, request.writes
            else:
                done.append(request)
                self._end(request, request.writing_since)
        return done

    def _end(self, request: _Request, writing_since: float) -> None:
        self._running.remove(request)
        del self._asked[request.seat]
        self.answers += 1
        work = Work(self.model, request.read, request.writes, self.now - writing_since)
        self.concurrency.ended(request.sent, self.now, work)
