"""How PostgreSQL says what the store says, in SQLAlchemy's words or in SQL, for SQLite."""

import re
from functools import cache
from typing import Any

from sqlalchemy import Executable, ScalarSelect, Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect


class _Compiler(dialect.PGCompiler_asyncpg):
    """Writes for PostgreSQL what the store says in SQLAlchemy's words for SQLite."""

    def _on_conflict_target(self, clause: Any, **kw: Any) -> str:
        clause.constraint_target = None
        return super()._on_conflict_target(clause, **kw)  # type: ignore[no-any-return,no-untyped-call]  # not in the stubs

    def visit_json_each_func(self, fn: Any, **kw: Any) -> str:
        return f"json_array_elements_text(CAST({self.process(fn.clauses, **kw)} AS json))"

    def visit_in_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """What is one of a list, or of the first few, is found once, and then looked up by index."""
        chosen = self.process(binary.right, **kw)
        if _is_short(binary.right):
            return f"{self.process(binary.left, **kw)} = ANY (ARRAY{chosen})"
        return f"{self.process(binary.left, **kw)} IN {chosen}"

    def visit_min_func(self, fn: Any, **kw: Any) -> str:
        return f"{'least' if len(fn.clauses) > 1 else 'min'}({self.process(fn.clauses, **kw)})"

    def visit_max_func(self, fn: Any, **kw: Any) -> str:
        return f"{'greatest' if len(fn.clauses) > 1 else 'max'}({self.process(fn.clauses, **kw)})"


def _is_short(chosen: Any) -> bool:
    """Whether it chooses no more than its list or its limit has."""
    select = chosen.element if isinstance(chosen, ScalarSelect) else None
    if not isinstance(select, Select):
        return False
    return select._limit_clause is not None or any(_is_list(each) for each in select.get_final_froms())


def _is_list(source: Any) -> bool:
    return getattr(getattr(source, "element", None), "name", None) == "json_each"


class _Dialect(dialect.dialect):
    statement_compiler = _Compiler


_DIALECT = _Dialect()  # type: ignore[no-untyped-call]  # not in the stubs
_compiled: dict[Executable, tuple[str, list[str], dict[str, Any]]] = {}


def statement_of(statement: Executable) -> tuple[str, list[str], dict[str, Any]]:
    """A statement's text, the names of its values in their order, and those values that are always the same."""
    known = _compiled.get(statement)
    if known is None:
        compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]  # Executable lacks it in the stubs
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        known = _compiled[statement] = (str(compiled), list(compiled.positiontup or ()), constants)
    return known


_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_TIME = re.compile(r"strftime\('%Y-%m-%dT%H:%M:%SZ', (.+?), 'unixepoch'\)")
_IN_ITS_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_TIME, r"""to_char(to_timestamp(\1) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""),
    # A cast rounds.
    (re.compile(r"\bCAST\((.+?) AS INTEGER\)"), r"CAST(trunc(\1) AS INTEGER)"),
    (re.compile(r"json_each\((:\w+)\)"), r"json_array_elements_text(CAST(\1 AS json))"),
    # Its planner orders the tables by itself.
    (re.compile(r"\bCROSS JOIN\b"), "JOIN"),
    (re.compile(r"\binstr\("), "strpos("),
)


def in_its_words(text: str) -> str:
    """A statement or a view that is written for SQLite, as PostgreSQL says it."""
    for pattern, replacement in _IN_ITS_WORDS:
        text = pattern.sub(replacement, text)
    return text


@cache
def question_of(text: str) -> tuple[str, tuple[str, ...]]:
    """A statement with named values, and the names in the order of its numbered ones."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    return _PARAMETER.sub(number, in_its_words(text)), tuple(names)
