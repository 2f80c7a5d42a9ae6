"""How pages are made of templates."""

import http
import json
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment

from distllm.domain.words import count, failed_prompt, number, span, state_of
from distllm.service import session
from distllm.service.page.static import address
from distllm.service.problems import Refused
from distllm.templates import templates

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # With `no-referrer` a browser would call the origin of its own forms `null`.
    "Referrer-Policy": "same-origin",
}


def page(request: web.Request, template: str, status: int = 200, **values: Any) -> web.Response:
    """A page of a template, for one who may be signed in."""
    return _made(template, status, signed_in=request[session.SIGNED_IN], **values)


def _made(template: str, status: int, **values: Any) -> web.Response:
    text = _environment().get_template(template).render(values)
    return web.Response(
        status=status, body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8", headers=HEADERS
    )


def refusal(refused: Refused) -> web.StreamResponse:
    """A page that says why a request was not followed; who is not signed in is asked to."""
    if refused.status == http.HTTPStatus.UNAUTHORIZED:
        return elsewhere("/login")
    title = http.HTTPStatus(refused.status).phrase
    found = _made("problem.html", refused.status, signed_in=False, refused=refused, title=title)
    found.headers.update(refused.headers)
    return found


def elsewhere(path: str) -> web.Response:
    """Sends the browser to another page, with GET."""
    return web.Response(status=http.HTTPStatus.SEE_OTHER, headers={"Location": path, **HEADERS})


@cache
def _environment() -> Environment:
    environment = templates(Path(__file__).parent / "templates")
    environment.globals["static"] = address
    environment.filters |= {
        "number": number,
        "span": span,
        "things": count,
        "failed_prompt": failed_prompt,
        "state": state_of,
        "time": _time,
        "pretty": _pretty,
    }
    return environment


def _time(iso: str) -> str:
    """2026-11-29T08:00:00Z as people write it."""
    return iso.replace("T", " ").replace("Z", " UTC")


def _pretty(data: str) -> str:
    """JSON set in lines; what is no JSON, as it is."""
    try:
        return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return data
