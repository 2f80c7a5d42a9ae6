"""A server that answers whatever it is asked with the same bytes, for ever if need be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain, repeat

BLOCK = 100_000


class Flood:
    """A server that answers every request with the same bytes, and counts how many of them it got rid of."""

    def __init__(self, answer: list[bytes], endless: bytes = b"", pause: float = 0.0) -> None:
        self._answer = answer
        self._endless = endless
        self._pause = pause
        self.sent = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            for whole in chain(self._answer, repeat(self._endless) if self._endless else ()):
                for at in range(0, len(whole), BLOCK):
                    block = whole[at : at + BLOCK]
                    writer.write(block)
                    await writer.drain()
                    self.sent += len(block)
                    await asyncio.sleep(self._pause)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def flooding(flood: Flood) -> AsyncIterator[Flood]:
    server = await asyncio.start_server(flood.serve, "127.0.0.1", 0)
    async with server:
        flood.port = server.sockets[0].getsockname()[1]
        yield flood


def head(status: str = "200 OK", *more: str, kind: str = "application/json") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
