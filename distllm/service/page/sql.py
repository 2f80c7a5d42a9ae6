"""SQL over the views, with the same guards and limits as `distllm query`."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from distllm.domain.errors import DistllmError
from distllm.domain.places import DatabasePlace
from distllm.service.endpoint import desk_of, query_of
from distllm.service.models import Query
from distllm.service.page.rendering import page
from distllm.service.problems import RefusedError
from distllm.store.queries import TABLE_ROWS, in_table, open_query

SECONDS = 30.0
MOST_AT_A_TIME = 2
"""A query keeps a thread and a core busy."""

VIEWS = ("answers", "failures", "job_progress", "part_progress", "worker_stats")
EXAMPLES = (
    ("Answers to read", "select document, prompt, answer from answers where job_id = 1"),
    ("What failed, by reason", "select error, count(*) as times from failures group by error order by times desc"),
    ("How fast each worker is", "select worker, succeeded, avg_seconds, tokens_per_second from worker_stats"),
    (
        "The longest answers",
        "select document, prompt, completion_tokens from answers order by completion_tokens desc limit 20",
    ),
)


class SqlQuery(Query):
    """What is asked of the database."""

    sql: Annotated[str, Field(max_length=20_000)] = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of a query as they are shown; `more` if there were more."""

    names: list[str]
    rows: list[list[str | None]]
    more: bool


class SqlBox:
    """Runs what people write, a few at a time."""

    def __init__(self) -> None:
        self._running = 0

    async def show(self, request: web.Request) -> web.Response:
        """The box, and what was found."""
        desk, sql = desk_of(request), query_of(request, SqlQuery).sql
        found, problem, status = None, None, 200
        if sql.strip():
            try:
                found = await self._run(desk.database.place, sql)
            except DistllmError as error:
                problem, status = str(error), 422
        values: dict[str, Any] = {"sql": sql, "found": found, "problem": problem}
        return page(request, "sql.html", status, **values, views=VIEWS, examples=EXAMPLES, most=TABLE_ROWS)

    async def _run(self, place: DatabasePlace, sql: str) -> Found:
        if self._running >= MOST_AT_A_TIME:
            raise RefusedError(503, "other queries are running: try again in a moment", Retry_After="5")
        self._running += 1
        try:
            return await asyncio.to_thread(_found, place, sql)
        finally:
            self._running -= 1


def _found(place: DatabasePlace, sql: str) -> Found:
    # One row more tells whether there are more.
    with open_query(place, sql, SECONDS, TABLE_ROWS + 1) as query:
        # A page at a time is cut to what is shown, so that wide rows are not held.
        rows = [[None if value is None else in_table(value) for value in row] for rows in query.pages() for row in rows]
        return Found(query.names, rows[:TABLE_ROWS], len(rows) > TABLE_ROWS)
