"""The least time that a fleet can take: a bound that no policy can beat but by luck."""

from collections.abc import Sequence
from itertools import pairwise

from benchmarks.fleet.servers import Server
from benchmarks.fleet.work import QUESTION, Task, Trouble


def least(servers: Sequence[Server], tasks: Sequence[Task], troubles: Sequence[Trouble], scale: float) -> float:
    """All work spread over all the speed that there is, with each paper read once and cut wherever that helps.

    No less than the longest single prompt on the server that is best at it. `troubles` last shares of `scale` seconds.
    What is to be read most, for what is to be written, goes to those that read best, for how they write.
    """
    chain = max(
        min((task.tokens + QUESTION) / server.prefill + max(task.answers) / server.decode for server in servers)
        for task in sorted(tasks, key=lambda each: -each.tokens)[:100]
    )
    work = [(float(task.tokens + QUESTION * len(task.answers)), sum(task.answers)) for task in tasks]
    work.sort(key=lambda each: -each[0] / each[1])
    ordered = sorted(servers, key=lambda each: -each.prefill / each.most_decode)
    low, high = 0.0, 1.0
    while not _fits(ordered, work, troubles, scale, high):
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _fits(ordered, work, troubles, scale, middle) else (middle, high)
    return max(chain, high)


def _fits(
    servers: Sequence[Server],
    work: Sequence[tuple[float, float]],
    troubles: Sequence[Trouble],
    scale: float,
    seconds: float,
) -> bool:
    at, left = 0, 1.0
    for server in servers:
        budget = _available([each for each in troubles if each.worker == server.number], scale, seconds)
        while at < len(work):
            tokens, answers = work[at]
            needs = left * (tokens / server.prefill + answers / server.most_decode)
            if needs > budget:
                left *= 1 - budget / needs
                break
            budget -= needs
            at, left = at + 1, 1.0
        if at == len(work):
            return True
    return False


def _available(troubles: Sequence[Trouble], scale: float, seconds: float) -> float:
    """Seconds at full speed that one server has until `seconds`."""
    edges = sorted(
        {0.0, seconds, *(min(seconds, edge * scale) for each in troubles for edge in (each.begins, each.ends))}
    )
    found = 0.0
    for begins, ends in pairwise(edges):
        speeds = [each.speed for each in troubles if each.begins * scale <= begins and ends <= each.ends * scale + 1e-9]
        found += (ends - begins) * min(speeds, default=1.0)
    return found
