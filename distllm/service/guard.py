"""Who may come in: nobody by another name than the service's own, no page of elsewhere, and only with the token.

A page in a browser of this machine can reach a service on the loopback address. It can have its own name
mean that address, and then reads what it likes: so the name in `Host` must be one that is known to mean this
service. And it can send forms and texts without reading the answer: so what changes anything must not come
from another origin.
"""

import hmac
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from distllm.domain.hosts import address_of, is_loopback
from distllm.service import session
from distllm.service.problems import RefusedError

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Judges requests. `host` is what the service listens at; without `token` whoever reaches it may come in.

    `names` are others that mean this service, beside this machine's own.
    """

    host: str
    token: str | None = None
    names: Sequence[str] = ()

    def check(self, request: web.Request, *, needs_no_token: bool = False) -> None:
        """Raises RefusedError for whoever may not come in."""
        if not self._is_ours(request.headers.get("Host", "")):
            raise RefusedError(
                403, "the name of this request's Host is not known here: use an address, or serve with --name"
            )
        if request.method not in _HARMLESS and not self._is_own_page(request):
            raise RefusedError(403, "a page of another origin may change nothing here")
        if _is_foreign(request) and request.headers.get("Sec-Fetch-Mode") != "navigate":
            raise RefusedError(403, "a page of another origin may take nothing from here; a link to here is fine")
        if self.token is not None and not needs_no_token and not _may_come(request, self.token):
            raise RefusedError(
                401, "give the service's token: Authorization: Bearer TOKEN", WWW_Authenticate='Bearer realm="distllm"'
            )
        request[session.SIGNED_IN] = self.token is not None and session.is_of(request, self.token)

    def _is_ours(self, given: str) -> bool:
        host = _host_of(given)
        if host is None:
            return False
        address = address_of(host)
        if address is not None:
            # A page cannot make an address mean another; only a name.
            return not is_loopback(self.host) or address.is_loopback
        return host in _names(self.host) or host in (name.lower() for name in self.names)

    def _is_own_page(self, request: web.Request) -> bool:
        if _is_foreign(request):
            return False
        origin = request.headers.get("Origin")
        return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()


def _is_foreign(request: web.Request) -> bool:
    """Whether a browser says that a page of elsewhere has it ask."""
    return request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


def _may_come(request: web.Request, token: str) -> bool:
    """Whether a request bears the token, or the cookie of a browser that has shown it."""
    # A browser sends a cookie at whatever page's word, so its word about which page that is must be there.
    says_who = request.method in _HARMLESS or "Origin" in request.headers
    return _has(request, token) or (says_who and session.is_of(request, token))


def _has(request: web.Request, token: str) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    # In constant time, so that nobody learns it letter by letter. A header may hold bytes that are no text.
    given_bytes = given.strip().encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given_bytes, token.encode()) and kind.lower() == "bearer"


def _names(host: str) -> Sequence[str]:
    if is_loopback(host):
        return ("localhost",)
    here = socket.gethostname().lower()
    return ("localhost", host.lower(), here, here.partition(".")[0], f"{here.partition('.')[0]}.local")


def _host_of(given: str) -> str | None:
    """The name or address of a Host header, without its port."""
    try:
        return urlsplit(f"//{given}").hostname
    except ValueError:
        return None
