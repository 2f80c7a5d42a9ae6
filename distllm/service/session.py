"""What a browser has instead of the token once it has shown that: a cookie that no script can read.

It is made of the token, so that it needs no memory of its own and ends when the token is changed; the token cannot be
made of it.
"""

import hashlib
import hmac

from aiohttp import web

COOKIE = "distllm-session"
_MEANING = b"a browser that has shown the token"


def begin(response: web.Response, token: str) -> None:
    """Give the browser its cookie: until it is closed, and never on a way from another site."""
    response.set_cookie(COOKIE, _value(token), path="/", httponly=True, samesite="Strict")


def end(response: web.Response) -> None:
    """Take the cookie away."""
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")


def is_of(request: web.Request, token: str) -> bool:
    """Whether a request has the cookie that was given for `token`."""
    return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), _value(token).encode())


def _value(token: str) -> str:
    return hmac.new(token.encode(), _MEANING, hashlib.sha256).hexdigest()
