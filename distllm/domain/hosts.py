"""Machines: which addresses are of this one alone, and what the machines that share a database call its workers."""

import ipaddress
from urllib.parse import urlsplit

_OF = " of "


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is of this machine alone."""
    address = address_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def seen_from(host: str, identity: str) -> str:
    """A worker's identity for all machines that share a database: what only machine `host` can reach is told apart.

    As it is where nobody else shares it, and `host` is empty.
    """
    url = urlsplit(identity)
    here = url.scheme == "embedded" or is_loopback(url.hostname or "")
    return f"{identity}{_OF}{host}" if host and here else identity


def seen_here(host: str, identity: str) -> str:
    """The identity by which machine `host` itself knows a worker."""
    return identity.removesuffix(f"{_OF}{host}")
