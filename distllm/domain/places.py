"""Where a database is: a file of this machine, or a PostgreSQL server."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from distllm.domain.errors import UsageError

_POSTGRES = re.compile(r"postgres(ql)?://")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_HOST = r"(?:\[[0-9A-Fa-f:.%]*\]|[^@/?#\[\]:,]*)(?::\d*)?"
_URL = re.compile(rf"postgres(?:ql)?://(?:[^@/?#]*@)?{_HOST}(?:,{_HOST})*(?:/[^@/?#]*)?(?:\?[^#]*)?")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A database of a PostgreSQL server. Its text shows no password; `secret` is the whole URL."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        parts = urlsplit(self.secret)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username
        return f"postgresql://{user + '@' if user else ''}{host}{parts.path}"

    @property
    def database(self) -> str:
        """The name of the database on its server; empty where the server's default is meant."""
        return unquote(urlsplit(self.secret).path.removeprefix("/"))


DatabasePlace = Path | PostgresUrl


def place_of(text: str) -> DatabasePlace:
    """What `--db` names: a URL that begins with `postgresql://`, or else a file.

    Raises UsageError for other addresses, and for a URL that nobody understands; neither is repeated in the error,
    since it may hold a password.
    """
    if _POSTGRES.match(text):
        if not _URL.fullmatch(text) or not text.isprintable():
            raise UsageError(
                "the URL of the database is not of the form postgresql://USER:PASSWORD@HOST:PORT/NAME: "
                "write what is special in a password as %XX, such as %40 for @"
            )
        return PostgresUrl(text)
    if _ADDRESS.match(text):
        raise UsageError(
            "the database is at an address of another kind: give a path, such as papers.db, "
            "or a text that begins with postgresql://"
        )
    return Path(text)
