"""The one HTTP session that all workers share."""

import aiohttp


def open_session(
    *,
    connect_timeout: float = 10.0,
    connections_per_host: int = 100,
    dns_cache: int = 300,
    keep_alive: float | None = None,
) -> aiohttp.ClientSession:
    """Open a session in the running event loop; the caller closes it. Times are seconds.

    It sets no limit to a whole request, since every call brings its own. By default each request has a
    connection of its own: llama.cpp closes after every streamed answer without announcing it, and others
    after 5 s of idleness, so that a request sent on an old connection may meet a reset; a new one costs
    milliseconds where an answer costs seconds. `keep_alive`, if given, should stay below 5. Proxies of the
    environment are not used: the servers are in the house.
    """
    if keep_alive is None:
        connector = aiohttp.TCPConnector(
            limit=0, limit_per_host=connections_per_host, ttl_dns_cache=dns_cache, force_close=True
        )
    else:
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=connections_per_host,
            ttl_dns_cache=dns_cache,
            keepalive_timeout=keep_alive,
        )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A proxy that compresses a stream also delays it.
        headers={"Accept-Encoding": "identity", "User-Agent": "distllm"},
        read_bufsize=2**20,
        trust_env=False,
    )
