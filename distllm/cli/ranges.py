"""Which addresses a scan may try."""

import ipaddress

from distllm.domain.errors import UsageError

MOST_ADDRESSES = 1024
THIS_MACHINE = "127.0.0.1"

_NETWORKS_OF_ONES_OWN = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"),
    )
) + tuple(map(ipaddress.ip_network, ("fc00::/7", "fe80::/10", "::1/128")))


def hosts_of(cidr: str | None) -> tuple[list[str], bool]:
    """The addresses of a range, or this machine; and whether they are those of a house and not of the world.

    Raises UsageError for what is no range, or one that is too large.
    """
    if cidr is None:
        return [THIS_MACHINE], True
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise UsageError(f"{cidr!r} is no range of addresses: write it as 192.168.1.0/24") from None
    if network.num_addresses > MOST_ADDRESSES:
        bits = network.max_prefixlen - (MOST_ADDRESSES.bit_length() - 1)
        raise UsageError(
            f"{cidr} has {network.num_addresses:,} addresses: scan at most {MOST_ADDRESSES:,} at a time, a /{bits}"
        )
    # The networks of other versions hold nothing of this one.
    at_home = any(network.version == own.version and network.subnet_of(own) for own in _NETWORKS_OF_ONES_OWN)  # type: ignore[arg-type]
    return [str(host) for host in network.hosts()], at_home
