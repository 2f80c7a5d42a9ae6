"""`distllm workers add` and `remove`, which change the file; nobody is asked unless the kind is left out."""

import asyncio
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distllm.cli.screen import out, print_json, safe
from distllm.config import Config, WorkerConfig
from distllm.config.address import Address, parse_address
from distllm.config.edit import add_worker, file_to_edit, remove_worker
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.models import WorkerSpec
from distllm.workers.kinds import default_port, find_kind


@dataclass(frozen=True, slots=True)
class NewWorker:
    """The options of `distllm workers add`, as they were given."""

    address: str
    kind: str | None
    id: str | None
    model: str | None
    max_concurrent: int | None
    context_length: int | None
    endpoint: str | None
    api_key_env: str | None


def add(config: Path | None, given: NewWorker, as_json: bool) -> int:
    """Add a worker to the configuration file in use."""
    address = parse_address(given.address)
    kind = given.kind
    if kind is None:
        kind, address = asyncio.run(_find_out(address))
    try:
        find_kind(kind)
    except ValueError as error:
        raise UsageError(f"--type: {error}") from None
    worker: dict[str, Any] = {"id": given.id, "type": kind, "host": address.host}
    optional = {
        "port": address.port,
        "scheme": address.scheme if address.scheme != "http" else None,
        "endpoint": given.endpoint,
        "model": given.model,
        "max_concurrent_requests": given.max_concurrent,
        "context_length": given.context_length,
        "api_key_env": given.api_key_env,
    }
    worker |= {name: value for name, value in optional.items() if value is not None}
    file, name = store(config, worker)
    if as_json:
        print_json({"file": str(file), "added": worker})
        return 0
    out.print(safe(f"{file}: worker {name!r} was added; try it with: distllm workers check {name}"), soft_wrap=True)
    return 0


def store(config: Path | None, worker: dict[str, Any]) -> tuple[Path, str]:
    """Add a worker, which gets an id if it has none; return the file and the id. Raises UsageError for a known one."""
    file = file_to_edit(config, create=True)
    known = Config.load(file).workers if file.exists() else ()
    spec = judged(worker, file)
    for other in known:
        if _place(other.keyless()) == _place(spec):
            raise UsageError(f"{file}: {other.id!r} is at {_shown(spec)} already; remove it first, or edit the file")
    if worker["id"] is None:
        worker["id"] = new_id(spec.host, spec.port, {other.id for other in known})
    elif any(other.id == worker["id"] for other in known):
        raise UsageError(f"{file}: there is a worker {worker['id']!r} already; give another --id")
    add_worker(file, worker)
    return file, str(worker["id"])


def judged(worker: dict[str, Any], file: Path) -> WorkerSpec:
    """The worker as it would be read from the file. Raises UsageError with what is wrong."""
    alone: WorkerConfig = Config.of(
        {"workers": [worker | {"id": "new" if worker["id"] is None else worker["id"]}]}, str(file)
    ).workers[0]
    return alone.keyless()


def new_id(host: str, port: int, taken: Collection[str]) -> str:
    """A name for a worker: its host's, with the port where that is taken."""
    try:
        short = str(ipaddress.ip_address(host))
    except ValueError:
        short = host.partition(".")[0]
    for name in (short, f"{short}-{port}"):
        if name not in taken:
            return name
    return next(name for number in range(2, 10_000) if (name := f"{short}-{port}-{number}") not in taken)


def remove(config: Path | None, name: str, as_json: bool) -> int:
    """Remove a worker from the configuration file in use."""
    file = file_to_edit(config, create=False)
    remove_worker(file, name)
    if as_json:
        print_json({"file": str(file), "removed": name})
        return 0
    out.print(safe(f"{file}: worker {name!r} was removed"), soft_wrap=True)
    return 0


def _place(spec: WorkerSpec) -> tuple[str, str, int]:
    return spec.scheme, spec.host.lower(), spec.port


def _shown(spec: WorkerSpec) -> str:
    return f"{spec.scheme}://{f'[{spec.host}]' if ':' in spec.host else spec.host}:{spec.port}"


async def _find_out(address: Address) -> tuple[str, Address]:
    """Ask the server what it is, at the port given or where servers listen."""
    from distllm.compose.scan import PORTS, look_at
    from distllm.workers.session import open_session

    scheme = address.scheme or "http"
    ports = PORTS if address.port is None else (address.port,)
    async with open_session() as session:
        for found in await asyncio.gather(*(look_at(address.host, port, session, scheme) for port in ports)):
            if found is not None:
                # A port that goes without saying is not written down.
                port = None if address.port is None and default_port(found.kind) == found.port else found.port
                return found.kind, Address(address.host, port, address.scheme)
    raise DistllmError(f"no server that distllm knows answers at {address.host}: say what it is with --type")
