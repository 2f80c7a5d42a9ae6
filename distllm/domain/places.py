"""Where a database is: a file of this machine, or a PostgreSQL server."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_SCHEME = re.compile(r"postgres(ql)?://")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A database of a PostgreSQL server. Its text shows no password; `secret` is the whole URL."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        parts = urlsplit(self.secret)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username
        return f"postgresql://{user + '@' if user else ''}{host}{parts.path}"


DatabasePlace = Path | PostgresUrl


def place_of(text: str) -> DatabasePlace:
    """What `--db` names: a URL that begins with `postgresql://`, or else a file."""
    return PostgresUrl(text) if _SCHEME.match(text) else Path(text)
