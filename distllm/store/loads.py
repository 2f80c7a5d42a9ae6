"""What workers did over time, in so many equal steps: a week of samples is too much to be looked at one by one."""

from distllm.store.reads import Reader, Record


async def load_steps(reader: Reader, since: float, step: float) -> list[Record]:
    """The samples since a time, taken together by `step` seconds and worker, in the order of workers and time.

    Each is identity, step (counted from `since`), in_flight and healthy on the mean, answers, failed and tokens.
    """
    return await reader.rows(_STEPS, since=since, step=step)


# A week of samples is a few thousand rows a worker: found by the index of each.
_STEPS = """
SELECT w.identity, CAST((m.at - :since) / :step AS INTEGER) AS step, avg(m.in_flight) AS in_flight,
       avg(m.healthy) AS healthy, sum(m.succeeded) AS answers, sum(m.failed) AS failed,
       sum(m.completion_tokens) AS tokens
  FROM workers w CROSS JOIN worker_metrics m ON m.worker_id = w.id AND m.at >= :since
 GROUP BY w.id, 2 ORDER BY w.id, 2
"""
