"""What distllm's database keeps of the servers' own counts: how often each document was read, and how fast."""

import sqlite3
from contextlib import closing
from pathlib import Path

_BEST = """
SELECT max((prompt_tokens - cached_tokens) / prefill_seconds) FILTER (WHERE prompt_tokens - cached_tokens >= 16),
       max(completion_tokens / decode_seconds)
  FROM attempts WHERE outcome = 'done'
"""
# A request that read more than half of its prompt anew has read the document.
_READINGS = "SELECT count(*) FROM attempts WHERE prompt_tokens > 2 * cached_tokens"
_BEGUN = """
SELECT count(DISTINCT p.document_id) FROM attempts a JOIN prompts p ON p.id = a.prompt_id
  JOIN workers w ON w.id = a.worker_id WHERE w.name = ? AND a.outcome = 'lost'
"""


def best_rates(path: Path) -> tuple[float, float]:
    """The most tokens a second that any request read, and that any wrote."""
    with closing(sqlite3.connect(path)) as connection:
        reading, writing = connection.execute(_BEST).fetchone()
    return reading, writing


def readings(path: Path) -> int:
    """How many times a document was read, as far as the server lived to tell."""
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(_READINGS).fetchone()
    return int(count)


def cut_short(path: Path, worker: str) -> int:
    """How many documents a worker was asked about without an answer."""
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(_BEGUN, (worker,)).fetchone()
    return int(count)
