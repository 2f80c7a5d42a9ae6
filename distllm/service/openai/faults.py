"""Errors in the form that OpenAI's clients read."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from distllm.service.problems import Refused, RefusedError

_TYPES = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class Fault(Refused):
    """A refusal that names what of a request is wrong, and a code for programs."""

    param: str | None = None
    code: str | None = None


class FaultError(RefusedError):
    """Raised by handlers to refuse a request with a code."""

    def __init__(self, status: int, detail: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, detail)
        self.refused = Fault(status, detail, {}, param, code)


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as the body of a response."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def openai_error(refused: Refused) -> web.Response:
    """The error as OpenAI tells it."""
    param, code = (refused.param, refused.code) if isinstance(refused, Fault) else (None, None)
    # OpenAI's servers have no 422, and its clients try again what is a conflict for ever.
    status = 400 if refused.status == 422 else refused.status
    headers = {**refused.headers, **({"x-should-retry": "false"} if status == 409 else {})}
    return web.json_response(error_body(status, refused.detail, param=param, code=code), status=status, headers=headers)
