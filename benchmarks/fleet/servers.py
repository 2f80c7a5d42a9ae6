"""A server that is made up: it reads and writes at its rates, shares itself between its slots, and keeps papers."""

from collections import OrderedDict
from dataclasses import dataclass, field

from benchmarks.fleet.work import QUESTION, Task
from distllm.domain.models import Usage


@dataclass(slots=True, eq=False)
class Request:
    """One prompt in flight: what is left to read and to write, in tokens. `holder` is whoever waits for the answer."""

    task: Task
    prompt: int
    holder: object
    noise: float
    began: float
    read: float = 0.0
    to_read: float = 0.0
    to_write: float = 0.0
    first_token: float = 0.0
    slot: int = 0

    def usage(self, now: float) -> Usage:
        """What its server tells of it at its end."""
        asked = self.task.tokens + QUESTION
        return Usage(
            prompt_tokens=asked,
            cached_tokens=round(asked - self.read),
            completion_tokens=round(self.task.answers[self.prompt]),
            prefill_seconds=self.first_token - self.began,
            decode_seconds=now - self.first_token,
        )


@dataclass(slots=True, eq=False)
class Server:
    """Rates are tokens a second with one request in flight.

    Reading gains nothing from more slots. Writing does: `gain` is what each further request adds to the tokens that
    are written in all. `keeps` is how many papers stay in its memory beside those in its slots; None is none at all.
    `speed` is the share of its rates that it has now: 0 while it hangs.
    """

    number: int
    prefill: float
    decode: float
    slots: int = 1
    gain: float = 0.0
    keeps: int | None = 0
    up: bool = True
    speed: float = 1.0
    version: int = 0
    running: list[Request] = field(default_factory=list)
    _seen: float = 0.0
    _in_slots: dict[int, Task] = field(default_factory=dict)
    _memory: OrderedDict[int, Task] = field(default_factory=OrderedDict)

    @property
    def most_decode(self) -> float:
        """Tokens a second that it writes with every slot at work."""
        return self.decode * (1 + self.gain * (self.slots - 1))

    def take(self, request: Request, now: float) -> None:
        """Begin to read, if the paper is not in memory, and then to write."""
        self._pass(now)
        request.read = QUESTION if self._put(request) else request.task.tokens + QUESTION
        request.to_read = request.read * request.noise
        request.to_write = request.task.answers[request.prompt] * request.noise
        self.running.append(request)

    def _put(self, request: Request) -> bool:
        """Choose the free slot that has the paper, or else one; return whether it need not be read."""
        busy = {other.slot for other in self.running}
        free = [slot for slot in range(self.slots) if slot not in busy]
        task = request.task
        warm = next((slot for slot in free if self._in_slots.get(slot) is task), None)
        request.slot = free[0] if warm is None else warm
        hit = warm is not None or task.number in self._memory
        pushed_out = self._in_slots.get(request.slot)
        if self.keeps is None:
            return False
        self._in_slots[request.slot] = task
        self._memory.pop(task.number, None)
        if pushed_out is not None and pushed_out is not task:
            self._memory[pushed_out.number] = pushed_out
            while len(self._memory) > self.keeps:
                self._memory.popitem(last=False)
        return hit

    def next_change(self) -> float:
        """In how many seconds a request has been read or answered, as things are; infinite if none will."""
        if not self.running or not self.speed:
            return float("inf")
        reading, writing = self._rates()
        return min(
            request.to_read / reading if request.to_read > 0 else request.to_write / writing for request in self.running
        )

    def step(self, now: float) -> list[Request]:
        """Let the time pass until `now`; return what has been answered."""
        self._pass(now)
        ended = [request for request in self.running if request.to_read <= 0 and request.to_write <= 0]
        for request in ended:
            self.running.remove(request)
        return ended

    def stop(self, request: Request, now: float) -> None:
        """Its client has left."""
        self._pass(now)
        self.running.remove(request)

    def change(self, now: float, speed: float) -> None:
        """Work at another speed from `now` on."""
        self._pass(now)
        self.speed = speed

    def die(self, now: float) -> list[Request]:
        """Go down; return what was in flight. Whatever was in memory is gone."""
        self._pass(now)
        lost, self.running = self.running, []
        self.up = False
        self._in_slots.clear()
        self._memory.clear()
        return lost

    def _rates(self) -> tuple[float, float]:
        share = self.speed / len(self.running)
        writing = sum(request.to_read <= 0 for request in self.running)
        return self.prefill * share, self.decode * share * (1 + self.gain * max(0, writing - 1))

    def _pass(self, now: float) -> None:
        passed, self._seen = now - self._seen, now
        if not self.running or passed <= 0:
            return
        reading, writing = self._rates()
        for request in self.running:
            if request.to_read > 0:
                request.to_read -= reading * passed
                if request.to_read <= 1e-6:
                    request.to_read, request.first_token = 0.0, now
            else:
                request.to_write -= writing * passed
                if request.to_write <= 1e-6:
                    request.to_write = 0.0
