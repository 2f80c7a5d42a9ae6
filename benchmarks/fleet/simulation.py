"""Servers, troubles and a clock that jumps from event to event; who decides what is sent where is a dispatcher."""

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from benchmarks.fleet.servers import Request, Server
from benchmarks.fleet.work import Task, Trouble
from distllm.domain.models import ErrorClass

NOISE = 0.15
GAP_SECONDS = 60.0
"""How long a client waits for the next token of an answer that has begun."""


class Dispatcher(Protocol):
    """Sends prompts by `Simulation.send` and is told of their ends."""

    @property
    def done(self) -> bool:
        """Whether everything has been answered."""
        ...

    def ended(self, server: Server, request: Request, error: ErrorClass | None) -> None:
        """An answer has come, or none will."""
        ...

    def changed(self, server: Server) -> None:
        """A server has died, or is there again."""
        ...

    def step(self) -> None:
        """Send what should be sent now."""
        ...


class Simulation:
    """One run. Times are seconds from its start."""

    def __init__(self, servers: Sequence[Server], noise: Callable[[float, float], float]) -> None:
        self.servers = servers
        self.now = 0.0
        self.asked = self.read = 0
        self._noise = noise
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._troubled: set[int] = set()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a moment, or now if that has passed."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), action))

    def suffer(self, troubles: Sequence[Trouble], scale: float, dispatcher: Dispatcher) -> None:
        """Let these come about, where they last shares of `scale` seconds."""
        for trouble in troubles:
            server = self.servers[trouble.worker]
            self._troubled.add(trouble.worker)
            begins, ends = trouble.begins * scale, trouble.ends * scale
            if trouble.kind == "slow":
                self.at(begins, lambda server=server, speed=trouble.speed: self._work_at(server, speed))
                self.at(ends, lambda server=server: self._work_at(server, 1.0))
            elif trouble.kind == "hang":
                self.at(begins, lambda server=server: self._hang(server, dispatcher))
                self.at(ends, lambda server=server: self._work_at(server, 1.0))
            else:
                if begins == 0:
                    server.up = False
                self.at(begins, lambda server=server: self._die(server, dispatcher))
                self.at(ends, lambda server=server: self._rise(server, dispatcher))

    def send(self, server: Server, task: Task, prompt: int, holder: object, limit: float) -> Request:
        """Send a prompt to a server that is up. The client leaves after `limit` seconds without a first token."""
        request = Request(task, prompt, holder, self._noise(1 - NOISE, 1 + NOISE), self.now)
        server.take(request, self.now)
        self.asked += 1
        self.read += round(request.read)
        self._plan(server)
        if server.number in self._troubled:
            self.at(self.now + limit, lambda: self._leave_if_silent(server, request))
        return request

    def run(self, dispatcher: Dispatcher) -> float:
        """Go on until everything is answered; return when that was."""
        self._dispatcher = dispatcher
        dispatcher.step()
        while not dispatcher.done:
            if not self._events:
                raise RuntimeError("the simulation stands still with prompts left")
            self.now = self._events[0][0]
            while self._events and self._events[0][0] == self.now:
                heapq.heappop(self._events)[2]()
            dispatcher.step()
        return self.now

    def _plan(self, server: Server) -> None:
        server.version += 1
        version, wait = server.version, server.next_change()
        if wait < float("inf"):
            self.at(self.now + wait, lambda: self._move(server, version))

    def _move(self, server: Server, version: int) -> None:
        if version != server.version:
            return
        for request in server.step(self.now):
            self._dispatcher.ended(server, request, None)
        if version == server.version:
            self._plan(server)

    def _work_at(self, server: Server, speed: float) -> None:
        server.change(self.now, speed)
        self._plan(server)

    def _hang(self, server: Server, dispatcher: Dispatcher) -> None:
        self._work_at(server, 0.0)
        for request in server.running:
            if request.to_read <= 0:
                self.at(self.now + GAP_SECONDS, lambda request=request: self._leave_if_silent(server, request))

    def _leave_if_silent(self, server: Server, request: Request) -> None:
        if request in server.running and not server.speed:
            server.stop(request, self.now)
            self._plan(server)
            self._dispatcher.ended(server, request, ErrorClass.BROKEN)

    def _die(self, server: Server, dispatcher: Dispatcher) -> None:
        for request in server.die(self.now):
            dispatcher.ended(server, request, ErrorClass.LOST)
        self._plan(server)
        dispatcher.changed(server)

    def _rise(self, server: Server, dispatcher: Dispatcher) -> None:
        server.up = True
        dispatcher.changed(server)
