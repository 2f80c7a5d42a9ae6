"""A server on PostgreSQL that falls silent, as when its machine or the network has gone: nobody waits long for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from distllm.domain.places import PostgresUrl
from distllm.store.database import open_database
from distllm.store.fleet import register
from distllm.store.hearts import LostError
from distllm.store.postgres import heart, questions
from distllm.store.tx import StoreError


class Cable:
    """What lies between this machine and the server, at `url`; once it is cut, nothing comes through, nor an end."""

    def __init__(self, host: str, port: int) -> None:
        self.cut = False
        self._there = host, port
        self._ways: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.StreamWriter] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(*self._there)
        self._ends += [writer, there]
        self._ways += [asyncio.create_task(self._carry(reader, there)), asyncio.create_task(self._carry(back, writer))]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                if not self.cut:
                    writer.write(data)
        writer.close()

    async def close(self) -> None:
        for way in self._ways:
            way.cancel()
        for end in self._ends:
            end.transport.abort()
        closing = (end.wait_closed() for end in self._ends)
        await asyncio.gather(*self._ways, *closing, return_exceptions=True)


@pytest.fixture
async def cable(postgres_url: str) -> AsyncIterator[tuple[Cable, PostgresUrl]]:
    server, _, _ = postgres_url.rpartition("@")[2].partition("/")
    host, _, port = server.partition(":")
    cable = Cable(host, int(port))
    async with await asyncio.start_server(cable.connected, "127.0.0.1", 0) as ends:
        here = ends.sockets[0].getsockname()[1]
        yield cable, PostgresUrl(postgres_url.replace(server, f"127.0.0.1:{here}"))
        await cable.close()


async def test_who_leaves_in_a_hurry_does_not_wait_for_it(cable: tuple[Cable, PostgresUrl]) -> None:
    between, place = cable
    async with open_database(place) as database:
        await database.write(lambda tx: register(tx, "here", 1, 0.0))
        between.cut = True
        began = time.monotonic()
        database.hurry(0.5)
        with pytest.raises(StoreError, match="does not answer"):
            await database.write(lambda tx: register(tx, "here", 2, 0.0))
    assert time.monotonic() - began < 10


async def test_who_asks_is_told_that_it_is_out_of_reach(
    cable: tuple[Cable, PostgresUrl], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "STATEMENT_SECONDS", 1.0)
    between, place = cable
    async with open_database(place) as database:
        assert await database.read.unfinished() == []
        between.cut = True
        async with asyncio.timeout(20):
            with pytest.raises(StoreError, match="does not answer") as caught:
                await database.read.unfinished()
    assert caught.value.passing


async def test_a_coordinator_that_finds_it_silent_has_nobody_else_wait_for_it(
    cable: tuple[Cable, PostgresUrl], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heart, "BEAT_SECONDS", 1.0)
    between, place = cable
    async with open_database(place) as database:
        life = await database.heart()
        assert life is not None
        await database.read.changes()
        await database.read.unfinished()
        await database.write(lambda tx: register(tx, "here", 1, 0.0))
        between.cut = True
        asked = asyncio.create_task(database.read.unfinished())
        written = asyncio.create_task(database.write(lambda tx: register(tx, "here", 2, 0.0)))
        async with asyncio.timeout(20):
            with pytest.raises(LostError, match="does not answer"):
                await life.beat([], [], 0.0)
            for waiting in (asked, written):
                with pytest.raises(StoreError) as caught:
                    await waiting
                assert caught.value.passing
        between.cut = False
        async with asyncio.timeout(20):
            assert await database.read.unfinished() == []
            await database.write(lambda tx: register(tx, "here", 3, 0.0))
            await database.read.changes()
        await life.close()
