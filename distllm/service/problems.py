"""What is told of a request that cannot be followed: a problem of RFC 9457, in one clear sentence."""

import http
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from distllm.domain.errors import DistllmError, NoJobError, NoWorkerError, UsageError
from distllm.orders import EndedError
from distllm.store.submissions import KeyTakenError
from distllm.store.tx import StoreError

logger = logging.getLogger("distllm.service")


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was not followed: the HTTP status, and one sentence that says what is wrong and what to do."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Raised by handlers to refuse a request."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.refused = Refused(status, detail, {name.replace("_", "-"): value for name, value in headers.items()})


def problem(refused: Refused) -> web.Response:
    """The problem as the API tells it."""
    told = {
        "type": "about:blank",
        "title": http.HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.detail,
    }
    return web.Response(
        status=refused.status,
        text=json.dumps(told),
        content_type="application/problem+json",
        headers=refused.headers,
    )


def refused_of(error: Exception) -> Refused:
    """What to say of an error: the one table of them. What nobody foresaw is logged, and none of it is told."""
    match error:
        case RefusedError():
            return error.refused
        case web.RequestPayloadError():
            return Refused(400, "the body broke off, or is not what its headers say: send it again")
        case web.HTTPException():
            return Refused(error.status, _told(error), _kept(error))
        case NoJobError():
            return Refused(404, str(error))
        case EndedError() | KeyTakenError():
            return Refused(409, str(error))
        case NoWorkerError():
            return Refused(503, str(error), {"Retry-After": "30"})
        case StoreError():
            logger.error("%s", error)
            if error.passing:
                return Refused(503, "the database cannot be written now: try again in a minute", {"Retry-After": "30"})
            return Refused(500, "the database could not be written: see the service's log")
        case UsageError() | DistllmError():
            return Refused(422, str(error))
        case _:
            logger.error("a request failed: %s: %s", type(error).__name__, error)
            logger.debug("", exc_info=error)
            return Refused(500, "the service made a mistake, which its log tells of")


def _told(error: web.HTTPException) -> str:
    match error:
        case web.HTTPNotFound():
            return "there is nothing at this path: /api/v1/openapi.json lists what there is"
        case web.HTTPMethodNotAllowed():
            return f"{error.method} is not done here: there is {', '.join(sorted(error.allowed_methods))}"
        case web.HTTPRequestEntityTooLarge():
            return "the body is longer than what is taken here: send less at a time"
        case _:
            return f"{error.reason}".lower()


def _kept(error: web.HTTPException) -> dict[str, str]:
    return {name: error.headers[name] for name in ("Allow", "Location", "Retry-After") if name in error.headers}
