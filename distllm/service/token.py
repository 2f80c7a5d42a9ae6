"""The token that those who come from elsewhere must have, kept in a file that only its owner can read."""

import os
import secrets
import stat
from pathlib import Path

from distllm.domain.errors import DistllmError

_BYTES = 32
_SHORTEST = 16


def token_file(path: Path) -> Path:
    """Where the token of the service of the database at `path` is kept."""
    return path.with_name(path.name + "-token")


def kept_token(path: Path) -> tuple[str, bool]:
    """The token of the service of the database at `path`, and whether it was made just now.

    Raises DistllmError for a file that others can read, or that holds no token.
    """
    file = token_file(path)
    try:
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(file), False
    token = secrets.token_urlsafe(_BYTES)
    with os.fdopen(opened, "w") as new:
        new.write(f"{token}\n")
    return token, True


def checked(token: str, where: str) -> str:
    """A token that was given. Raises DistllmError for one that is easily guessed, or cannot be sent."""
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise DistllmError(f"{where} holds no token: it must be {_SHORTEST} or more letters and digits without a blank")
    return token


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as opened:
        if os.fstat(opened.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise DistllmError(f"{file} can be read by others: remove it, and a new token is made")
        return checked(opened.read().strip(), str(file))
