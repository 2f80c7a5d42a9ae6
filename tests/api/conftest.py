"""What the tests of the Python API share: a configuration of fake servers, and a look into databases."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from distllm import Config
from tests.fakes.server import FakeServer


def config_of(*servers: FakeServer, **more: Any) -> Config:
    """The configuration that names `servers` as w0, w1 and so on."""
    workers = [
        {"id": f"w{i}", "type": "openai", "host": server.host, "port": server.port} for i, server in enumerate(servers)
    ]
    return Config.model_validate({"workers": workers} | more)


def rows(db: Path, statement: str) -> list[tuple[Any, ...]]:
    """Ask a database in SQL; no rows while there is none."""
    if not db.exists():
        return []
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError:
            return []
