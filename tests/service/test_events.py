"""Events come as they happen, once each; who reads too slowly is cut off, and holds up nobody."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from distllm.service import stream
from distllm.service.hub import KEPT_EVENTS, MOST_LISTENERS, Hub, TooManyError
from distllm.service.pulse import Pulse
from tests.fakes.server import FakeServer
from tests.service.conftest import SOON, House, opened


@dataclass(frozen=True)
class Event:
    """What came."""

    id: str
    kind: str
    data: dict[str, object]


@dataclass
class Ear:
    """Reads a stream of events."""

    response: aiohttp.ClientResponse

    async def block(self) -> list[str]:
        """The next lines up to an empty one."""
        lines = []
        async with asyncio.timeout(SOON):
            while line := (await self.response.content.readline()).decode().rstrip("\n"):
                lines.append(line)
        return lines

    async def next(self) -> Event:
        """The next event."""
        while True:
            fields = dict(line.split(": ", 1) for line in await self.block())
            if "event" in fields:
                return Event(fields["id"], fields["event"], json.loads(fields["data"]))

    async def until(self, kind: str, **facts: object) -> Event:
        """The next event of a kind with these facts."""
        while (event := await self.next()).kind != kind or event.data | facts != event.data:
            pass
        return event


@asynccontextmanager
async def listening(house: House, last: str | None = None) -> AsyncIterator[Ear]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with house.client.get("/api/v1/events", headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield Ear(response)


async def test_who_listens_is_told_of_jobs_answers_and_workers(house: House, server: FakeServer) -> None:
    async with listening(house) as ear:
        assert await ear.block() == ["retry: 2000"]
        await house.submit("A paper.")
        assert (await ear.until("answered")).data["worker"] == "w0"
        assert (await ear.until("job", state="completed")).data["done"] == 1
        server.probe_status = 503
        assert (await ear.until("worker", healthy=False)).data["worker"] == "w0"


async def test_who_lost_the_connection_is_told_what_it_missed_and_nothing_twice(house: House) -> None:
    async with listening(house) as ear:
        await house.submit("A paper.")
        first = await ear.until("answered")
    await house.submit("Another.")
    await house.until_ended(2)
    async with listening(house, first.id) as ear:
        events = [await ear.next()]
        while events[-1].kind != "job" or events[-1].data["job_id"] != 2 or events[-1].data["state"] != "completed":
            events.append(await ear.next())
    numbers = [int(event.id.rpartition("-")[2]) for event in (first, *events)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    async with listening(house, "of-an-earlier-service-7") as ear:
        assert (await ear.next()).kind == "reset"


async def test_silence_is_broken_by_a_heartbeat(idle: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    async with listening(idle) as ear:
        assert await ear.block() == ["retry: 2000"]
        assert await ear.block() == [": still here"]
        assert await ear.block() == [": still here"]


async def test_who_reads_too_slowly_is_cut_off(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SLOWEST_SECONDS", 0.5)
    async with opened(db, working=False) as house:
        hub = house.service.hub
        reader, writer = await asyncio.open_connection("127.0.0.1", int(house.service.url.rpartition(":")[2]))
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"retry: 2000"), SOON)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        async with asyncio.timeout(SOON):
            while hub.has_listeners:
                hub.publish("notice", {"text": "x" * 50_000})
                await asyncio.sleep(0.002)
        async with listening(house) as ear:
            hub.publish("notice", {"text": "for the others"})
            assert (await ear.until("notice")).data == {"text": "for the others"}
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(2**31), SOON)
        writer.close()


async def test_who_has_left_makes_room_though_nothing_happens(idle: House) -> None:
    hub = idle.service.hub
    async with listening(idle) as ear:
        await ear.block()
        assert hub.has_listeners
        ear.response.close()
        async with asyncio.timeout(5):
            while hub.has_listeners:  # noqa: ASYNC110 - a listener that leaves sets no event
                await asyncio.sleep(0.05)


async def test_what_jobs_do_is_told_again_after_a_read_that_failed(
    idle: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader, hub = idle.service.database.read, Hub("e")
    whole = reader.changes

    async def fails_once() -> int:
        monkeypatch.setattr(reader, "changes", whole)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("distllm.service.pulse.EVERY_SECONDS", 0.05)
    monkeypatch.setattr(reader, "changes", fails_once)
    pulse = asyncio.create_task(Pulse(reader, hub).run())
    with hub.listening(None) as listener:
        async with asyncio.timeout(SOON):
            while "disk I/O error" not in caplog.text:  # noqa: ASYNC110 - a log sets no event
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            await idle.submit("A paper.")
            assert kinds_of(await listener.next(SOON)) == ["job"]
    pulse.cancel()


async def test_the_end_of_the_service_ends_the_stream_in_order(db: Path) -> None:
    async with opened(db, working=False) as house:
        client = aiohttp.ClientSession(house.service.url)
        response = await client.get("/api/v1/events")
    assert b"retry" in await asyncio.wait_for(response.read(), SOON)
    await client.close()


def kinds_of(events: bytes) -> list[str]:
    return [line.removeprefix("event: ") for line in events.decode().splitlines() if line.startswith("event: ")]


def ids_of(events: bytes) -> list[str]:
    return [line.removeprefix("id: ") for line in events.decode().splitlines() if line.startswith("id: ")]


async def test_a_listener_that_is_too_slow_is_told_that_it_missed_something_and_the_others_nothing_of_it() -> None:
    hub = Hub("e")
    with hub.listening(None) as slow, hub.listening(None) as quick:
        for number in range(KEPT_EVENTS + 1):
            hub.publish("n", {"n": number})
            assert ids_of(await quick.next(1)) == [f"e-{number + 1}"]
        assert kinds_of(await slow.next(1)) == ["reset"]
        hub.publish("n", {"n": 0})
        assert await slow.next(1) == await quick.next(1) != b""
    assert not hub.has_listeners


@pytest.mark.parametrize(
    ("last", "kinds"),
    [
        ("e-3", ["reset"]),
        ("e-9999", ["reset"]),
        ("e-x", ["reset"]),
        ("nonsense", ["reset"]),
        (f"e-{'9' * 5_000}", ["reset"]),
        (f"e-{KEPT_EVENTS + 3}", ["n", "n"]),
        (f"e-{KEPT_EVENTS + 5}", []),
    ],
)
async def test_what_is_not_kept_any_more_is_said_to_be_missing(last: str, kinds: list[str]) -> None:
    hub = Hub("e")
    for number in range(KEPT_EVENTS + 5):
        hub.publish("n", {"n": number})
    with hub.listening(last) as listener:
        hub.close()
        assert kinds_of(await listener.next(1)) == kinds


async def test_what_has_gathered_is_told_at_once() -> None:
    hub = Hub("e")
    with hub.listening(None) as listener:
        for number in range(3):
            hub.publish("n", {"n": number})
        assert ids_of(await listener.next(1)) == ["e-1", "e-2", "e-3"]
        assert await listener.next(0.01) == b""


async def test_no_more_than_so_many_may_listen() -> None:
    hub = Hub("e")
    with ExitStack() as stack:
        for _ in range(MOST_LISTENERS):
            stack.enter_context(hub.listening(None))
        with pytest.raises(TooManyError):
            stack.enter_context(hub.listening(None))
    with hub.listening(None):
        assert hub.has_listeners


async def test_a_pulse_tells_of_a_job_only_when_it_has_changed(idle: House) -> None:
    hub = Hub("e")
    pulse = Pulse(idle.service.database.read, hub)
    await pulse.step()
    with hub.listening(None) as listener:
        assert await pulse.step() == 0
        await idle.submit("A paper.")
        assert await pulse.step() == 1
        assert await pulse.step() == 0
        told = await listener.next(1)
        assert kinds_of(told) == ["job"]
        assert b'"job_id": 1' in told
    await idle.post("/jobs/1/pause")
    assert await pulse.step() == 0, "nobody listens"
    with hub.listening(None):
        assert await pulse.step() == 1, "and what changed meanwhile is told to who does"
        await idle.post("/jobs/1/cancel")
        assert await pulse.step() == 1
        await idle.submit("Another.")
        assert await pulse.step() == 1, "what has ended is told once"
