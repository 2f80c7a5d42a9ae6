"""How much there is to do and was done, over all jobs."""

from distllm.domain.states import PromptState
from distllm.store.reads import Reader, Record

_STATES = ", ".join(f"coalesce(sum(c.{state}), 0) AS {state}" for state in PromptState)

# From the counters of jobs: a million prompts cost as little as ten.
_DEPTH = f"""
SELECT k.part, {_STATES}
  FROM (SELECT 0 AS part UNION ALL SELECT 1) k LEFT JOIN job_counters c ON c.part = k.part GROUP BY k.part
"""


async def depth(reader: Reader) -> list[Record]:
    """How many prompts of all jobs are in each state: a row for whole answers (`part` is 0), one for parts (1)."""
    return await reader.rows(_DEPTH)
