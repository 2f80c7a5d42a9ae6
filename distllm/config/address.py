"""Addresses as people write them: `studio`, `studio:8080`, `[fe80::1]:8080`, `https://studio:8443`."""

import ipaddress
import re
from typing import NamedTuple

from distllm.domain.errors import UsageError

_FORM = re.compile(r"(?:(?P<scheme>https?)://)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^\[\]:/\s]+))(?::(?P<port>\d{1,5}))?/?")


class Address(NamedTuple):
    """Where a server listens; None where it was not said."""

    host: str
    port: int | None
    scheme: str | None


def parse_address(text: str) -> Address:
    """Read an address. Raises UsageError, with how they are written."""
    if "@" in text:
        # Not repeated: what stands before it may be a password.
        raise UsageError("an address has no user and no password: write HOST or HOST:PORT, and --api-key-env for a key")
    bare = _v6(text)
    if bare is not None:
        return Address(bare, None, None)
    found = _FORM.fullmatch(text)
    host = found and (_v6(found["v6"]) if found["v6"] else found["host"])
    if found is None or host is None:
        raise UsageError(f"{text!r} is no address: write HOST or HOST:PORT, such as studio:8080 or [fe80::1]:8080")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise UsageError(f"{text!r}: a port is a number from 1 to 65535")
    return Address(host, port, found["scheme"])


def _v6(text: str) -> str | None:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None
