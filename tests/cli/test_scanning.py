"""Servers are found where they listen."""

import asyncio
import json
import resource
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from distllm.cli.ranges import hosts_of
from distllm.compose import scan as scanning
from distllm.domain.errors import UsageError
from tests.cli.conftest import Cli
from tests.cli.here import Here, one_line, serving
from tests.fakes.server import FakeServer

several_addresses = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS gives its loopback one address, unless root gives it more"
)


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """Three machines with a server each, of every kind, at the same port."""
    found = [
        FakeServer(kind="ollama", models=("llama3.1:8b", "phi")),
        FakeServer(kind="lm_studio"),
        FakeServer(slots=2),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.5", 0))
        port = free.getsockname()[1]
    for last, server in enumerate(found, 2):
        server.host, server.port = f"127.0.0.{last}", port
    with serving(*found):
        yield found


def scan(here: Here, servers: list[FakeServer], *more: str) -> list[dict[str, object]]:
    done = here.run("workers", "scan", "127.0.0.0/29", "--port", str(servers[0].port), "--json", *more)
    assert done.code == 0, done.err
    found: list[dict[str, object]] = json.loads(done.out)
    return sorted(found, key=lambda row: str(row["address"]))


@several_addresses
def test_a_range_is_scanned_and_each_server_told_with_its_command(here: Here, servers: list[FakeServer]) -> None:
    found = scan(here, servers)
    assert [row["address"] for row in found] == [server.url for server in servers]
    assert [row["type"] for row in found] == ["ollama", "lm_studio", "openai"]
    assert [len(row["models"]) for row in found] == [2, 1, 1]  # type: ignore[arg-type]
    shown = here.run("workers", "scan", "127.0.0.0/29", "--port", str(servers[0].port)).out
    for row, server in zip(found, servers, strict=True):
        assert row["command"] == f"distllm workers add {server.host}:{server.port} --type {row['type']}"
        assert f"    {row['command']}\n" in shown
    assert "fake-model (8,192 tokens)" in shown


@several_addresses
def test_what_is_found_is_added_once_and_known_the_next_time(here: Here, servers: list[FakeServer]) -> None:
    for _ in range(2):
        scan(here, servers, "--add")
        workers = json.loads((here.folder / "workers.json").read_text())["workers"]
        assert sorted(worker["id"] for worker in workers) == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    shown = here.run("workers", "scan", "127.0.0.3/32", "--port", str(servers[0].port)).out
    assert "configured as 127.0.0.3" in shown
    assert here.run("workers", "check").code == 0


def test_finding_nothing_is_said(here: Here) -> None:
    done = here.run("workers", "scan", "127.0.0.9", "--port", "9")
    assert done.code == 0
    assert "No server was found in 127.0.0.9" in done.out


@pytest.mark.parametrize(
    ("cidr", "words"),
    [
        ("10.0.0.0/8", "16,777,216 addresses: scan at most 1,024 at a time, a /22"),
        ("fd00::/64", "a /118"),
        ("8.8.8.0/24", "not a private network: give --yes"),
        ("192.168.1.300", "no range of addresses"),
        ("studio", "no range of addresses"),
    ],
)
def test_a_range_that_is_not_scanned(here: Here, cidr: str, words: str) -> None:
    done = here.run("workers", "scan", cidr)
    assert done.code == 2
    assert words in one_line(done)


def test_which_addresses_a_range_has() -> None:
    assert hosts_of(None) == (["127.0.0.1"], True)
    assert hosts_of("192.168.1.7") == (["192.168.1.7"], True)
    assert hosts_of("192.168.1.7/30") == (["192.168.1.5", "192.168.1.6"], True)
    assert hosts_of("100.64.0.1")[1]
    assert not hosts_of("192.169.0.0/24")[1]
    assert len(hosts_of("10.1.0.0/22")[0]) == 1022
    with pytest.raises(UsageError):
        hosts_of("10.1.0.0/21")


def test_no_more_connections_than_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scanning.TRIES_AT_ONCE + 3 * scanning.LOOKS_AT_ONCE <= 256
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert 16 <= scanning._tries_at_once() <= 256 - 3 * scanning.LOOKS_AT_ONCE - 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@several_addresses
async def test_ctrl_c_ends_a_scan_and_keeps_what_was_told(cli: Cli) -> None:
    arrived = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            arrived.set()
        await reader.read()
        writer.close()

    async with FakeServer() as server, await asyncio.start_server(hold, "127.0.0.3", server.port):
        process = await cli.start("workers", "scan", "127.0.0.0/29", "--port", str(server.port))
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode() == f"{server.url}  openai\n"
        async with asyncio.timeout(10):
            await arrived.wait()
        process.send_signal(signal.SIGINT)
        done = await cli.finish(process, seconds=10)
    assert done.code == 130
    assert done.err.splitlines()[-1] == "stopped; 1 server found so far"
    assert "Traceback" not in done.err
