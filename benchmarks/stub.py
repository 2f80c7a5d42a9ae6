"""A server that answers as llama.cpp's does, always the same, for next to no time; at once, or after some seconds.

    python -m benchmarks.stub --slots 25 --answer-tokens 8

Prints its address as the first line, then serves until its standard input ends. It does not read what it is asked,
only how long that is. `GET /stats` tells what it was asked so far. It keeps connections, as HTTP/1.1 has it; with
`--close` it ends each with its answer, as llama.cpp does, and says so.
"""

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

MODEL = "stub"
WINDOW = 131_072
BYTES_PER_TOKEN = 3
"""Fewer than papers have, so that no client thinks that its prompt was cut."""


def main() -> None:
    """Serve until the starting process ends, or closes the pipe."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.stub", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=25)
    parser.add_argument("--answer-tokens", type=int, default=8, help="each an event of the stream (8)")
    parser.add_argument("--close", action="store_true", help="a connection for each answer")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each answer takes (0)")
    parser.add_argument("--hosts", type=int, default=1, help="addresses of the loopback to be a server at; Linux (1)")
    given = parser.parse_args()
    asyncio.run(_serve(Site(given.slots, given.answer_tokens, given.close, given.seconds), given.port, given.hosts))


def host(number: int) -> str:
    """One of the addresses of the loopback, from the usual one on."""
    return f"127.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


async def _serve(site: "Site", port: int, hosts: int) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for number in range(hosts):
            server = await loop.create_server(lambda: Connection(site), host(number), port, backlog=1024)
            await stack.enter_async_context(server)
            # At all addresses the port is the same.
            port = server.sockets[0].getsockname()[1]
        print(f"http://127.0.0.1:{port}", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


@dataclass
class Site:
    """What the server answers, and what it was asked."""

    slots: int
    answer_tokens: int
    close: bool
    seconds: float = 0.0
    stats: dict[str, int] = field(default_factory=lambda: {"answers": 0, "body_bytes": 0, "connections": 0})
    _events: bytes = b""

    def __post_init__(self) -> None:
        words = [{"role": "assistant", "content": None}, *({"content": f" word{n}"} for n in range(self.answer_tokens))]
        events = [_event(choices=[{"index": 0, "finish_reason": None, "delta": word}]) for word in words]
        events.append(_event(choices=[{"index": 0, "finish_reason": "stop", "delta": {}}]))
        connection = b"close" if self.close else b"keep-alive"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: "
        self._events = b"".join((head, connection, b"\r\n\r\n", *map(_chunk, events)))

    def answer(self, method: bytes, path: bytes, body_bytes: int) -> bytes:
        """The whole answer to a request, its head included."""
        match method, path:
            case b"POST", b"/v1/chat/completions":
                self.stats["answers"] += 1
                self.stats["body_bytes"] += body_bytes
                return b"".join((self._events, self._end(body_bytes), _chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"))
            case b"GET", b"/v1/models":
                meta = {"n_ctx": WINDOW, "n_ctx_train": WINDOW}
                entry = {"id": MODEL, "object": "model", "owned_by": "llamacpp", "meta": meta}
                return _json({"object": "list", "data": [entry]})
            case b"GET", b"/health":
                return _json({"status": "ok"})
            case b"GET", b"/props":
                return _json({"total_slots": self.slots, "model_alias": MODEL})
            case b"GET", b"/slots":
                return _json([{"id": slot, "is_processing": False} for slot in range(self.slots)])
            case b"GET", b"/stats":
                return _json(self.stats)
            case _:
                return _json({"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}, 404)

    def _end(self, body_bytes: int) -> bytes:
        read, written = body_bytes // BYTES_PER_TOKEN, self.answer_tokens
        usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        timings = {"cache_n": 0, "prompt_n": read, "prompt_ms": 0.5, "predicted_n": written, "predicted_ms": 0.5}
        return _chunk(_event(choices=[], usage=usage, timings=timings))


class Connection(asyncio.Protocol):
    """One connection: requests with a length, one after another."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._got = bytearray()
        self._head: bytes | None = None
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._site.stats["connections"] += 1

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._got += data
        while self._take():
            pass

    def _take(self) -> bool:
        if self._head is None:
            head, end, rest = self._got.partition(b"\r\n\r\n")
            if not end:
                return False
            self._head, self._got = bytes(head), rest
            self._body_bytes = _length(self._head)
        if len(self._got) < self._body_bytes:
            return False
        del self._got[: self._body_bytes]
        method, path, _ = self._head.split(b" ", 2)
        self._head = None
        if path == b"/v1/chat/completions" and self._site.seconds:
            asyncio.get_running_loop().call_later(self._site.seconds, self._say, method, path, self._body_bytes)
        else:
            self._say(method, path, self._body_bytes)
        return True

    def _say(self, method: bytes, path: bytes, body_bytes: int) -> None:
        self._transport.write(self._site.answer(method, path, body_bytes))
        if self._site.close:
            self._transport.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _event(**fields: object) -> bytes:
    frame = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": MODEL}
    return b"data: " + json.dumps(frame | fields).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _json(value: object, status: int = 200) -> bytes:
    body = json.dumps(value).encode()
    said = b"OK" if status == 200 else b"Not Found"
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        said,
        len(body),
        body,
    )


if __name__ == "__main__":
    main()
