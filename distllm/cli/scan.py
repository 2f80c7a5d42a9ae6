"""`distllm workers scan`."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from distllm.cli.ranges import hosts_of
from distllm.cli.screen import Ticker, complain, err, out, safe, tell
from distllm.cli.worker_edit import store
from distllm.cli.workers import as_models, described
from distllm.compose.checkup import identities
from distllm.compose.scan import PORTS, Server, scan
from distllm.config import Config
from distllm.domain.errors import UsageError
from distllm.domain.words import count
from distllm.workers.kinds import default_port

EXIT_INTERRUPTED = 130


def scan_for_workers(
    config: Path | None, cidr: str | None, ports: Sequence[int], *, add: bool, sure: bool, as_json: bool
) -> int:
    """Look for servers and print them as they are found, with the command that adds each."""
    hosts, at_home = hosts_of(cidr)
    if not at_home and not sure:
        question = f"{cidr} is not a private network. Scan it all the same?"
        if not sys.stdin.isatty() or not typer.confirm(safe(question), err=True):
            raise UsageError(f"{cidr} is not a private network: give --yes if you may scan it")
    settings = Config.load(config)
    places = [(host, port) for port in ports or PORTS for host in hosts]
    found: list[Server] = []
    try:
        asyncio.run(_scan(settings, places, found, as_json))
    except KeyboardInterrupt:
        err.print(f"stopped; {count(len(found), 'server')} found so far")
        return EXIT_INTERRUPTED
    if as_json:
        out.print(json.dumps([_as_record(each) for each in found]), soft_wrap=True)
    elif not found:
        where = "on this machine" if cidr is None else f"in {cidr}"
        tell(f"No server was found {where}; is one running, and open to this machine?")
    if add:
        _add(config, settings, found)
    return 0


async def _scan(config: Config, places: Sequence[tuple[str, int]], found: list[Server], as_json: bool) -> None:
    known = {identity: spec.name for spec, identity in await identities(config)}
    ticker = Ticker()
    try:
        async for server in scan(places, lambda tried: ticker.show(f"{tried} of {len(places)} addresses tried")):
            found.append(server)
            if not as_json:
                ticker.clear()
                _show(server, known.get(server.identity))
    finally:
        ticker.clear()


def _show(server: Server, known_as: str | None) -> None:
    out.print(safe(f"{server.identity}  {server.kind}"), soft_wrap=True)
    tell(f"    {server.health.error or described(server.health)}", hang=0)
    out.print(safe(f"    configured as {known_as}" if known_as else f"    {_command(server)}"), soft_wrap=True)


def _command(server: Server) -> str:
    host = f"[{server.host}]" if ":" in server.host else server.host
    port = "" if default_port(server.kind) == server.port else f":{server.port}"
    return f"distllm workers add {host}{port} --type {server.kind}"


def _add(config: Path | None, settings: Config, found: Sequence[Server]) -> None:
    known = {identity for _, identity in asyncio.run(identities(settings))}
    for server in found:
        if server.identity in known:
            continue
        worker: dict[str, Any] = {"id": None, "type": str(server.kind), "host": server.host}
        if default_port(server.kind) != server.port:
            worker["port"] = server.port
        try:
            file, name = store(config, worker)
        except UsageError as error:
            complain(str(error))
        else:
            err.print(safe(f"{file}: worker {name!r} was added"), soft_wrap=True)


def _as_record(server: Server) -> dict[str, Any]:
    return {
        "address": server.identity,
        "host": server.host,
        "port": server.port,
        "type": str(server.kind),
        "healthy": server.health.healthy,
        "error": server.health.error,
        "slots": server.health.slots,
        "models": as_models(server.health),
        "command": _command(server),
    }
