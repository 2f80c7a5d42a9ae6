"""Looking for servers: who listens at an address, and what it is."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from distllm.domain.models import Health, WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.detect import detect
from distllm.workers.session import open_session

PORTS = (11434, 1234, 8080, 8000, 9931)
"""Ollama, LM Studio, llama.cpp and mlx-lm, vLLM, and where llama.cpp's newest listens."""

CONNECT_SECONDS = 0.7
DETECT_SECONDS = 2.0
LOOK_SECONDS = 5.0
LOOKS_AT_ONCE = 16
TRIES_AT_ONCE = 256 - 3 * LOOKS_AT_ONCE
"""With three connections a look, at most 256 in all."""

FILES_FOR_OTHERS = 3 * LOOKS_AT_ONCE + 64
"""Of the files that a process may open, on macOS 256 where nobody changed it."""

OnTried = Callable[[int], None]
"""Told how many addresses have been tried."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was found, and what it says of itself."""

    host: str
    port: int
    kind: WorkerType
    identity: str
    health: Health


async def scan(places: Sequence[tuple[str, int]], on_tried: OnTried) -> AsyncIterator[Server]:
    """Try all `places`, many at a time; yield servers as they are found."""
    found: asyncio.Queue[Server | None] = asyncio.Queue()
    tries, looks = asyncio.Semaphore(_tries_at_once()), asyncio.Semaphore(LOOKS_AT_ONCE)
    tried = 0
    async with open_session() as session:

        async def look(host: str, port: int) -> None:
            nonlocal tried
            async with tries:
                open_there = await _listens(host, port)
                tried += 1
                on_tried(tried)
            if open_there:
                async with looks:
                    server = await look_at(host, port, session)
                    if server is not None:
                        found.put_nowait(server)

        async def look_everywhere() -> None:
            async with asyncio.TaskGroup() as group:
                for host, port in places:
                    group.create_task(look(host, port))

        searching = asyncio.create_task(look_everywhere())
        searching.add_done_callback(lambda _: found.put_nowait(None))
        try:
            while (server := await found.get()) is not None:
                yield server
            await searching
        finally:
            searching.cancel()
            with suppress(asyncio.CancelledError):
                await searching


async def look_at(host: str, port: int, session: aiohttp.ClientSession, scheme: str = "http") -> Server | None:
    """What is at an address; None if it is no server that distllm knows."""
    kind = await detect(host, port, session, DETECT_SECONDS, scheme=scheme)
    if kind is None:
        return None
    worker = make_worker(WorkerSpec(f"{host}:{port}", kind, scheme, host, port), session)
    return Server(host, port, kind, worker.identity, await worker.probe(LOOK_SECONDS))


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _tries_at_once() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return TRIES_AT_ONCE if soft == resource.RLIM_INFINITY else max(16, min(TRIES_AT_ONCE, soft - FILES_FOR_OTHERS))
