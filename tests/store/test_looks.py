"""What a page shows costs the same in a job of a million prompts: plans, not timings."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distllm.store import loads, looks

VALUES = {
    "job": 1,
    "ordinal": 5,
    "limit": 50,
    "named": "",
    "documents": "[1, 2]",
    "length": 160,
    "prompt": 7,
    "after": 3,
    "first": 1,
    "document": 4,
    "since": 0,
    "step": 60,
}
STATEMENTS = {
    name: statement
    for module in (looks, loads)
    for name, statement in vars(module).items()
    if isinstance(statement, str) and "SELECT" in statement and not name.endswith("_COLUMNS")
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_nothing_is_read_but_what_is_shown(template: Path, name: str) -> None:
    with closing(sqlite3.connect(template)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name]}", VALUES)]
    # Workers are few, and what a page names is short.
    assert [step for step in plan if step.startswith("SCAN") and not step.startswith(("SCAN w", "SCAN e"))] == []
