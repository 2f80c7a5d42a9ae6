"""The style, the script and the picture of the page: each at an address that changes with its content."""

import hashlib
from functools import cache
from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).parent / "static"
_KINDS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"


async def show_static(request: web.Request) -> web.Response:
    """One of the files."""
    name = request.match_info["name"]
    if name not in _KINDS:
        raise web.HTTPNotFound
    # An address of before, from a page that is still open, must not keep what is here now.
    lasts = {"Cache-Control": _FOR_EVER} if request.query.get("v") == _hash(name) else {}
    return web.Response(body=_content(name), content_type=_KINDS[name], charset="utf-8", headers=lasts)


def address(name: str) -> str:
    """Where a file is found."""
    return f"/static/{name}?v={_hash(name)}"


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


@cache
def _hash(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:16]
