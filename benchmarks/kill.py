"""A run during which one of the servers is killed amid a document, and comes back on its port."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.llama import MODULE, warm_up
from benchmarks.processes import Server, serving
from benchmarks.readings import cut_short, readings
from benchmarks.through_distllm import work
from distllm.domain.events import Answered, Event

HEALTH_CHECK_SECONDS = 1.0
VICTIM = "w0"


class Killed(NamedTuple):
    """How it went; `begun` is how many documents the killed server had begun and not finished."""

    answers_before: int
    begun: int
    seconds_away: float
    answers_of_returned: int
    readings: int


async def finish_after_kill(
    path: Path, servers: Sequence[Server], context: int, documents: int, questions: int, away: float
) -> Killed:
    """Work the job at `path`; when half of it is answered and the first server is amid a document, kill that.

    It is started again `away` seconds later, and ready when it has loaded its model.
    """
    answers: Counter[str] = Counter()
    amid = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, Answered):
            answers[event.worker] += 1
            # A seat asks all of one document before the next.
            if answers.total() >= documents * questions // 2 and answers[VICTIM] % questions:
                amid.set()

    working = asyncio.create_task(
        work(path, [server.port for server in servers], hear, health_check_interval=HEALTH_CHECK_SECONDS)
    )
    with ExitStack() as stack:
        waiting = asyncio.create_task(amid.wait())
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not amid.is_set():
            waiting.cancel()
            await working
            raise SystemExit(f"the job ended before the server was amid a document: {dict(answers)}")
        began, before = time.perf_counter(), answers.copy()
        servers[0].process.kill()
        servers[0].process.wait()
        await asyncio.wait({working}, timeout=away)
        back = await asyncio.to_thread(
            stack.enter_context, serving(MODULE, "--context", context, "--port", servers[0].port)
        )
        await asyncio.to_thread(warm_up, back.port)
        seconds_away = time.perf_counter() - began
        await working
    return Killed(
        before.total(), cut_short(path, VICTIM), seconds_away, answers[VICTIM] - before[VICTIM], readings(path)
    )
