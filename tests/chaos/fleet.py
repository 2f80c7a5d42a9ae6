"""The fake servers of a campaign in a process of their own: `python -m tests.chaos.fleet`.

Its first line says where they are. Then it takes one command a line on its standard input and answers each with
`ok`; it ends when that is closed. Every request for an answer leaves two lines in the log, `begin NUMBER KEY SERVER
LIFE TIME` and `end NUMBER HOW TIME`: KEY is what the prompt asks, SERVER who is asked, LIFE whose key it came with,
TIME of the monotonic clock, which all processes share, and HOW `answered`, `spoilt` (on purpose), or `disconnected`.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web

from tests.fakes import behaviour as b
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

MODEL = "m"
KINDS = {"llamacpp": "openai", "vllm": "openai", "lm_studio": "lm_studio", "ollama": "ollama", "plain": "openai"}
"""The kinds of server, each with the type of worker that speaks to it."""

PAPER, QUESTION = re.compile(r"paper\d{6}"), re.compile(r"question\d{6}")
LONGEST_ANSWER = 6.0
"""No answer takes longer than so many mean ones."""

BAD = (
    *(b.BUSY, b.TOO_MANY, b.QUEUE_FULL, b.POOL_FULL, b.CRASHED, b.LOAD_FAILED, b.REPEATS, b.RESET, b.BREAKS_OFF),
    *(b.ABORTS, b.EMPTY, b.ONLY_THINKS, b.CUT, b.HALVED, b.A_TENTH_LOST, b.PROXY_PAGE, b.PAGE_200, b.HANGS),
    *(
        b.STALLS,
        b.DRIPS,
        b.ENDLESS,
        b.LONG_LINE,
        b.PINGS,
        b.fails_inside("it failed"),
        b.fails_inside({"message": "x"}),
    ),
)


class Log:
    """Appends lines that others read while they come."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.numbers = count(1)

    def write(self, *words: object) -> None:
        """One line, with the time."""
        os.write(self._file, f"{' '.join(map(str, words))} {time.monotonic():.6f}\n".encode())


class Logged(FakeServer):
    """A fake that tells of its requests, answers each in its own way, and forgets those that have ended."""

    def __init__(self, log: Log, rng: Random, mean_seconds: float, **more: Any) -> None:
        super().__init__(model=MODEL, answer=self._made_up, on_request=self._begin, **more)
        self._log = log
        self._rng = rng
        self.mean_seconds = mean_seconds
        self.bad_share = 0.0
        self._numbers: dict[int, int] = {}
        self._mine: dict[asyncio.Task[Any] | None, Seen] = {}
        self._next()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer, and write down how that ended."""
        task = asyncio.current_task()
        try:
            return await super().complete(request)
        finally:
            seen = self._mine.pop(task, None)
            if seen is not None:
                how = "spoilt" if seen.behaviour in BAD else (seen.ended or "disconnected")
                self._log.write("end", self._numbers.pop(id(seen)), "spoilt" if how == "failed" else how)
                self.requests = [each for each in self.requests if each is not seen]

    def _begin(self, seen: Seen) -> None:
        number = self._numbers[id(seen)] = next(self._log.numbers)
        self._mine[asyncio.current_task()] = seen
        self._log.write(
            "begin", number, key_of(seen), self.kind, seen.headers.get("Authorization", "").removeprefix("Bearer ")
        )
        self._next()

    def _next(self) -> None:
        """Decide how the next request is treated."""
        if self._rng.random() < self.bad_share:
            return self.behave_always(self._rng.choice(BAD))
        seconds = min(self._rng.expovariate(1.0), LONGEST_ANSWER) * self.mean_seconds
        return self.behave_always(replace(b.GOOD, first_token_after=seconds))

    def _made_up(self, seen: Seen) -> str:
        """An answer that tells what was asked, like no other answer to it, and long enough to tell a pace."""
        return f"{key_of(seen)}#{self._numbers[id(seen)]} and so many words more that it has a pace"


def key_of(seen: Seen) -> str:
    """What a request asks: the mark of its paper and the one of its question."""
    paper, question = PAPER.search(seen.system), QUESTION.search(seen.question)
    return f"{paper.group() if paper else '-'}/{question.group() if question else '-'}"


async def obey(servers: list[Logged], log: Log, command: list[str]) -> None:
    """One command: `misbehave SHARE`, `pace SECONDS`, `cut SERVER SECONDS`, or `calm`."""
    match command:
        case ["misbehave", share]:
            for server in servers:
                server.bad_share = float(share)
        case ["pace", seconds]:
            for server in servers:
                server.mean_seconds = float(seconds)
        case ["cut", place, seconds]:
            server = servers[int(place) % len(servers)]
            log.write("cut", int(place) % len(servers))
            await server.stop()
            await asyncio.sleep(float(seconds))
            await server.start()
        case ["calm"]:
            # What hangs or stalls would do so for minutes; its server is started anew.
            for server in servers:
                server.bad_share = 0.0
                await server.stop()
                server._next()
                await server.start()
            log.write("cut", -1)
        case _:
            raise ValueError(f"no such command: {command}")


async def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(prog="tests.chaos.fleet", description=__doc__)
    parser.add_argument("--seats", type=int, default=50)
    parser.add_argument("--answer-seconds", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, required=True)
    given = parser.parse_args()
    log, loop, commands = Log(given.log), asyncio.get_running_loop(), asyncio.Queue[str]()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(commands.put_nowait, line)
        os._exit(0)

    kinds = list(KINDS)[: given.seats]
    seats = [given.seats // len(kinds) + (place < given.seats % len(kinds)) for place in range(len(kinds))]
    servers = [
        Logged(log, Random(f"{given.seed} {kind}"), given.answer_seconds, kind=kind, slots=each)
        for kind, each in zip(kinds, seats, strict=True)
    ]
    for server in servers:
        await server.start()
    workers = [
        {
            "id": server.kind,
            "type": KINDS[server.kind],
            "port": server.port,
            "max_concurrent_requests": server.slot_count,
        }
        for server in servers
    ]
    print(json.dumps(workers), flush=True)
    threading.Thread(target=listen, daemon=True).start()
    while True:
        await obey(servers, log, (await commands.get()).split())
        print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
