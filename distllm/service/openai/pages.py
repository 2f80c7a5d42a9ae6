"""Lists, a page at a time, as OpenAI's clients walk through them."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from distllm.service.openai.faults import FaultError


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` entries that follow the one called `after`."""

    after: str | None
    limit: int


def page_of(request: web.Request, *, largest: int, default: int) -> Page:
    """The page that a request wants. Raises FaultError for none."""
    given = request.query.get("limit", str(default))
    limit = int(given) if given.isdecimal() and given.isascii() and len(given) < 10 else 0
    if not 1 <= limit <= largest:
        raise FaultError(400, f"limit: must be from 1 to {largest:,}", param="limit")
    return Page(request.query.get("after"), limit)


def shown(entries: list[dict[str, Any]], limit: int) -> web.Response:
    """A page of `entries`, which are one more than `limit` where more follow."""
    page = entries[:limit]
    return web.json_response(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(entries) > limit,
        }
    )
