"""A PostgreSQL server of one's own, as a process that ends with the one that started it.

    python -m tests.postgres_server

Makes a new cluster in a temporary folder and prints its port as the first line, then serves until its standard input
ends, and leaves nothing behind. It loses data when the machine does, which no test minds, unless it is `--durable`.
Every line of its standard input stops it as a crash does, or starts it again at the same port; it answers with one.
"""

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

OLDEST = 15
START_SECONDS = 60
PLACES = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/opt/homebrew/opt", "postgresql*/bin"),
    ("/usr/local/opt", "postgresql*/bin"),
)
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "64MB",
    "min_wal_size": "2MB",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "autovacuum": "off",
}
DURABLE = SETTINGS | {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_wal_size": "512MB",
    "shared_buffers": "64MB",
    "autovacuum": "on",
}
"""Nothing that was committed is lost when it crashes."""


def programs() -> Path | None:
    """The folder of the newest PostgreSQL that is installed and new enough; None without one."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += [folder for place, pattern in PLACES for folder in Path(place).glob(pattern)]
    newest = max(((_version(folder), folder) for folder in folders), default=(0, None))
    return newest[1] if newest[0] >= OLDEST else None


def _version(folder: Path) -> int:
    if not all((folder / program).exists() for program in ("initdb", "postgres")):
        return 0
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else 0


class PostgresServer:
    """A server that runs at `port`, and what tests ask of it. Its user is `postgres`, and needs no password."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self._process = process
        self._made = count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._thread.start()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns that runs on the server's own event loop, beside the one of a test."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def execute(self, statement: str, database: str = "postgres") -> None:
        self.wait_for(self._execute(statement, database))

    async def _execute(self, statement: str, database: str) -> None:
        import asyncpg

        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, a copy of `template`; it is dropped at the end, whoever still uses it."""
        name = f"test_{next(self._made)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def crash(self) -> None:
        """Stop it at once, as `pg_ctl stop -m immediate` does; or else start it again, which returns once it is up."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline(), "the server did not do that; it said why above"

    start = crash

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def running(*options: str) -> Iterator[PostgresServer]:
    """A server with a new cluster, in a process of its own, which takes the `options`."""
    command = [sys.executable, "-m", "tests.postgres_server", *options]
    # A keyboard's interrupt is for the tests, which still need the server to end well.
    with subprocess.Popen(
        command, cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline()
        assert port, "the server did not start; it said why above"
        server = PostgresServer(int(port), process)
        try:
            yield server
        finally:
            server.close()


def main() -> None:
    """Serve until the starting process ends, or closes the pipe."""
    parser = argparse.ArgumentParser(prog="tests.postgres_server", description=__doc__)
    parser.add_argument("--durable", action="store_true", help="with the settings of a server that keeps what it has")
    settings = DURABLE if parser.parse_args().durable else SETTINGS
    folder = programs()
    if folder is None:
        sys.exit(f"PostgreSQL {OLDEST} or newer is not installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    cluster = Path(tempfile.mkdtemp(prefix="distllm-postgres-"))
    try:
        identity = _identity(cluster)
        made = [folder / "initdb", "--pgdata", cluster / "data", "--username=postgres", "--auth=trust", "--no-sync"]
        made += ["--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-instructions"]
        subprocess.run(made, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **identity)
        port = lasting_port()
        while _serve(folder, cluster, identity, port, settings):
            print("stopped", flush=True)
            if not sys.stdin.readline():
                break
    finally:
        shutil.rmtree(cluster, ignore_errors=True)


def _identity(cluster: Path) -> dict[str, Any]:
    """Who the server runs as, since it refuses to be root."""
    if os.getuid() != 0:
        return {"cwd": cluster}
    try:
        shutil.chown(cluster, "postgres", "postgres")
    except LookupError:
        shutil.chown(cluster, "nobody")
    seen = cluster.stat()
    return {"cwd": cluster, "user": seen.st_uid, "group": seen.st_gid, "extra_groups": ()}


def lasting_port() -> int:
    """A port that is free, and that no client is given while nobody listens there: those are higher."""
    while True:
        with socket.socket() as free:
            port = random.randrange(15000, 32000)
            with suppress(OSError):
                free.bind(("127.0.0.1", port))
                return port


def _serve(folder: Path, cluster: Path, identity: dict[str, Any], port: int, settings: dict[str, str]) -> bool:
    """Serve until standard input gives a line, or ends; then that is false."""
    chosen = [f"--{name}={value}" for name, value in settings.items()]
    command = [folder / "postgres", "-D", cluster / "data", f"--port={port}", *chosen]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **identity
    ) as server:
        assert server.stderr is not None
        try:
            told = []
            for line in server.stderr:
                told.append(line)
                if "ready to accept connections" in line:
                    break
            else:
                sys.exit("".join(told))
            Thread(target=server.stderr.read, daemon=True).start()
            print(port, flush=True)
            return bool(sys.stdin.readline())
        finally:
            # At once: nothing that it holds is wanted any more.
            server.send_signal(signal.SIGQUIT)


if __name__ == "__main__":
    main()
