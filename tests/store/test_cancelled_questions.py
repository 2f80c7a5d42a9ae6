"""A question on PostgreSQL that is cancelled ends so, whatever becomes of its connection meanwhile."""

import asyncio
import time

import pytest

from distllm.domain.places import PostgresUrl
from distllm.store.postgres.questions import open_questions
from tests.postgres_server import PostgresServer

ASK = "SELECT pg_sleep(0.2)"
TERMINATE = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = '{ASK}'"


async def test_it_is_cancelled_though_its_connection_is_lost_as_its_answer_comes(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with open_questions(PostgresUrl(postgres_url)) as questions:
        asking = asyncio.create_task(questions.ask(ASK, {}))
        await asyncio.sleep(0.1)
        # As who is frozen: the answer and the end of the connection are found at once when it wakes up.
        time.sleep(0.5)  # noqa: ASYNC251 - the loop is to stand still
        postgres_server.execute(TERMINATE)

        def cancel_once_answered() -> None:
            waiter = asking._fut_waiter  # type: ignore[attr-defined]
            if waiter is not None and waiter.done():
                asking.cancel()
            elif not asking.done():
                asyncio.get_running_loop().call_soon(cancel_once_answered)

        cancel_once_answered()
        with pytest.raises(asyncio.CancelledError):
            await asking
