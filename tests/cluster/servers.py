"""Six servers that answer in some tens of milliseconds, mostly, and are never to be asked more at once than they hold.

A request is one as long as its connection is open. Who has asked is known by the key that comes with it.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

from aiohttp import web

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.fleet import MODEL, key_of
from tests.cluster.calls import Call, Calls
from tests.fakes import behaviour as b
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen
from tests.postgres_server import lasting_port

SERVERS = 6
SLOTS = 4
BAD = (
    b.Behaviour(status=500, body={"error": {"message": "it failed"}}),
    b.BUSY,
    b.RESET,
    b.ABORTS,
    b.Behaviour(body=b'data: {"id": "x", "choices": [{"index": 0, "del', content_type="text/event-stream"),
)
BAD_SHARE = 0.01
SLOW_SHARE = 1 / 1500
SLOW_SECONDS = (3.0, 13.0)
MEAN_SECONDS = 0.03
AWAY_EVERY_SECONDS = 12.0
AWAY_SECONDS = (1.0, 3.0)


class Server(FakeServer):
    """Writes down what it is asked, and by whom; `broken` is the promise that was broken to it."""

    def __init__(self, place: int, calls: Calls, rng: Random) -> None:
        super().__init__(port=lasting_port(), model=MODEL, slots=SLOTS, answer=self._made_up, on_request=self._begin)
        self.place = place
        self.broken: BrokenPromiseError | None = None
        self._calls = calls
        self._rng = rng
        self._open: dict[asyncio.Task[Any] | None, web.Request] = {}
        self._running: dict[asyncio.Task[Any] | None, Call] = {}
        self._numbers: dict[int, int] = {}
        self._next()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer, and write down how that ended."""
        task = asyncio.current_task()
        self._open[task] = request
        self._count()
        try:
            return await super().complete(request)
        finally:
            del self._open[task]
            call = self._running.pop(task, None)
            if call is not None:
                self._end(call)

    def _count(self) -> None:
        """Never are more open than there are slots."""
        found = len(self._open)
        if found > SLOTS:
            waited_for = [request for request in self._open.values() if _is_waited_for(request)]
            found = len(waited_for)
            if found > SLOTS and self.broken is None:
                lives = ", ".join(sorted(str(request.headers.get("Authorization")) for request in waited_for))
                self.broken = BrokenPromiseError(
                    "no worker is asked more at once than it holds", f"server {self.place} had {found}: {lives}"
                )
        self._calls.most[self.place] = max(self._calls.most[self.place], found)

    def _begin(self, seen: Seen) -> None:
        life = seen.headers.get("Authorization", "").removeprefix("Bearer ")
        call = self._running[asyncio.current_task()] = self._calls.begin(key_of(seen), self.place, life)
        self._numbers[id(seen)] = call.number
        self._next()

    def _end(self, call: Call) -> None:
        [seen] = [each for each in self.requests if self._numbers.get(id(each)) == call.number]
        self.requests.remove(seen)
        del self._numbers[id(seen)]
        call.ended = asyncio.get_running_loop().time()
        # It has no runner any more while it goes away.
        spoilt = seen.behaviour in BAD or self._runner is None
        call.how = "spoilt" if spoilt else {"answered": "answered", "disconnected": "left"}.get(str(seen.ended))

    def _next(self) -> None:
        """Decide how the next request is treated."""
        chance = self._rng.random()
        if chance < BAD_SHARE:
            return self.behave_always(self._rng.choice(BAD))
        seconds = min(self._rng.expovariate(1 / MEAN_SECONDS), 5 * MEAN_SECONDS)
        if chance > 1 - SLOW_SHARE:
            seconds = self._rng.uniform(*SLOW_SECONDS)
        return self.behave_always(replace(b.GOOD, first_token_after=seconds))

    def _made_up(self, seen: Seen) -> str:
        """An answer that tells what was asked, and by which call."""
        return f"{key_of(seen)}#{self._numbers[id(seen)]} and so many words more that it has a pace"


def _is_waited_for(request: web.Request) -> bool:
    """Whether the client of a request has its connection open still, whatever the server has noticed so far."""
    transport = request.transport
    ours = None if transport is None or transport.is_closing() else transport.get_extra_info("socket")
    if ours is None or ours.fileno() < 0:
        return False
    with socket.socket(fileno=os.dup(ours.fileno())) as beside:
        beside.setblocking(False)
        try:
            return beside.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


class Fleet:
    """All servers of a run, and their weather."""

    def __init__(self, calls: Calls, seed: int) -> None:
        self._rng = Random(f"weather {seed}")
        self.servers = [Server(place, calls, Random(f"server {seed} {place}")) for place in range(SERVERS)]

    async def start(self) -> None:
        """Listen."""
        for server in self.servers:
            await server.start()

    async def stop(self) -> None:
        """End."""
        for server in self.servers:
            await server.stop()

    async def change(self) -> None:
        """Take one after another away for a while, until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / AWAY_EVERY_SECONDS))
            server = self._rng.choice(self.servers)
            await server.stop()
            await asyncio.sleep(self._rng.uniform(*AWAY_SECONDS))
            await server.start()

    def broken(self) -> Iterator[BrokenPromiseError]:
        """What was broken to any of them."""
        yield from (server.broken for server in self.servers if server.broken is not None)

    def configured(self, life: str) -> list[dict[str, object]]:
        """Their entries for the configuration of a life."""
        return [
            {
                "id": f"server{server.place}",
                "type": "openai",
                "port": server.port,
                "max_concurrent_requests": SLOTS,
                "context_length": server.context,
                "api_key": life,
            }
            for server in self.servers
        ]
