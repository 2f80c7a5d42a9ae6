"""The pages of promises and faults name tests that are there, and no promise stands without one."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs/promises.md", ROOT / "docs/faults.md"]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_in(path: str) -> frozenset[str]:
    """The functions of a file of tests."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def promises() -> dict[str, str]:
    """Each promise, with what is said of it."""
    made = PAGES[0].read_text(encoding="utf-8").split("\n## ")[0]
    return {part.partition("\n")[0]: part for part in made.split("\n### ")[1:]}


def rows() -> list[str]:
    """The faults that are injected, each with its rule and its tests."""
    injected = PAGES[1].read_text(encoding="utf-8").split("\n## ")[0]
    lines = [line for line in injected.splitlines() if line.startswith("| ")]
    return [line for line in lines[1:] if not line.startswith("| **")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_is_named_is_there(page: Path) -> None:
    named = TEST.findall(page.read_text(encoding="utf-8"))
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_every_promise_has_a_rule_and_a_test() -> None:
    assert len(promises()) >= 7
    for promise, text in promises().items():
        assert TEST.search(text), promise
        assert "**Rule**" in text, promise


def test_every_fault_names_a_test() -> None:
    assert len(rows()) >= 30
    assert [row for row in rows() if "`tests/" not in row.split(" | ")[-1]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_rule_that_is_named_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:store|domain|workers|dispatcher|balancer|compose)/\w+\.py)`", text))
    assert named
    assert sorted(path for path in named if not (ROOT / "distllm" / path).exists()) == []
