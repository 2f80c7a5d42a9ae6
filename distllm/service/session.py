"""What a browser has instead of the token once it has shown that: a cookie that no script can read.

It is made of the token, so that it needs no memory of its own and ends when the token is changed; the token cannot be
made of it. Its name is made of it too: a browser keeps cookies by host and not by port, and two services of one host
must not take each other's place.
"""

import hashlib
import hmac

from aiohttp import web

SIGNED_IN = web.RequestKey("signed_in", bool)
"""Where a request that was let in says whether it has such a cookie."""

_MEANING = b"a browser that has shown the token"
_NAMING = b"the name of its cookie"


def cookie_of(token: str) -> str:
    """The name of the cookie that is given for `token`."""
    return f"distllm-session-{_made(token, _NAMING)[:8]}"


def begin(response: web.Response, token: str) -> None:
    """Give the browser its cookie: until it is closed, and never on a way from another site."""
    response.set_cookie(cookie_of(token), _made(token, _MEANING), path="/", httponly=True, samesite="Strict")


def end(response: web.Response, token: str) -> None:
    """Take the cookie away."""
    response.del_cookie(cookie_of(token), path="/", httponly=True, samesite="Strict")


def is_of(request: web.Request, token: str) -> bool:
    """Whether a request has the cookie that was given for `token`."""
    given = request.cookies.get(cookie_of(token), "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), _made(token, _MEANING).encode())


def _made(token: str, meaning: bytes) -> str:
    return hmac.new(token.encode(), meaning, hashlib.sha256).hexdigest()
