"""The workers: how they are, how fast, and what they did over the last hours."""

from dataclasses import dataclass
from typing import Literal, assert_never

from aiohttp import web

from distllm.service.endpoint import desk_of, query_of
from distllm.service.models import Query
from distllm.service.page.rendering import page
from distllm.store.loads import load_steps
from distllm.store.reads import Record

STEPS = 60

Span = Literal["hour", "day", "week"]


class LoadQuery(Query):
    """How far back load is shown."""

    span: Span = "hour"


@dataclass(frozen=True, slots=True)
class Line:
    """What a worker did in each of `STEPS` equal steps of time; None where nobody looked."""

    label: str
    values: list[float | None]

    @property
    def largest(self) -> float:
        """The value that stands at the top."""
        return max((value for value in self.values if value is not None), default=0.0)

    def path(self) -> str:
        """The line in a box of `STEPS` by 100, as SVG has it; broken where nothing is known."""
        drawn, joined = "", False
        for place, value in enumerate(self.values):
            if value is not None:
                height = 100 - 96 * value / self.largest if self.largest else 100
                drawn += f"{'L' if joined else 'M'}{place},{height:.1f}h1"
            joined = value is not None
        return drawn


async def show_workers(request: web.Request) -> web.Response:
    """All workers."""
    desk, query = desk_of(request), query_of(request, LoadQuery)
    step = _seconds(query.span) / STEPS
    # Steps begin where those of the last look did, so that a line moves only once in a while.
    until = (desk.clock.now() // step + 1) * step
    rows = await load_steps(desk.database.read, until - STEPS * step, step)
    workers = [worker | {"lines": _lines(rows, worker["address"], step)} for worker in await desk.roster()]
    return page(request, "workers.html", workers=workers, span=query.span, step=step)


def _lines(rows: list[Record], identity: str, step: float) -> list[Line]:
    known = {row["step"]: row for row in rows if row["identity"] == identity}
    if not known:
        return []
    steps = [known.get(place) for place in range(STEPS)]
    return [
        Line("requests in flight, on the mean", [None if row is None else row["in_flight"] for row in steps]),
        Line("tokens written a second", [None if row is None else row["tokens"] / step for row in steps]),
        Line("answers a minute", [None if row is None else 60 * row["answers"] / step for row in steps]),
    ]


def _seconds(span: Span) -> float:
    match span:
        case "hour":
            return 3600.0
        case "day":
            return 86400.0
        case "week":
            return 7 * 86400.0
        case _:
            assert_never(span)
