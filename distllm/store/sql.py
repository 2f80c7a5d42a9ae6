"""Pieces that the statements of the store are made of."""

from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Insert, Table, Text, bindparam, cast, func, insert, literal_column, select
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.states import PromptState
from distllm.store.tables import job_counters

Column = ColumnElement[Any]


def word(value: StrEnum) -> Column:
    """A constant written into the statement itself, so that a partial index can be used."""
    return literal_column(f"'{value}'", Text)


PENDING = word(PromptState.PENDING)
LEASED = word(PromptState.LEASED)
DONE = word(PromptState.DONE)
FAILED = word(PromptState.FAILED)
CANCELLED = word(PromptState.CANCELLED)


def one_of(column: Column, name: str) -> Column:
    """`column` is in the JSON list bound to `name`: one statement for lists of every length."""
    return column.in_(_listed(column, name))


def none_of(column: Column, name: str) -> Column:
    """`column` is not in the JSON list bound to `name`."""
    return column.not_in(_listed(column, name))


def _listed(column: Column, name: str) -> Any:
    return select(cast(func.json_each(bindparam(name, type_=Text)).table_valued("value").c.value, column.type))


def insert_row(table: Table, *columns: str) -> Insert:
    """An INSERT of one row whose values are bound by the columns' own names."""
    return insert(table).values({name: bindparam(name) for name in columns})


_COUNTS = [column.name for column in job_counters.columns if not column.primary_key]
_new = upsert_into(job_counters).values({column.name: bindparam(column.name) for column in job_counters.columns})

# Counters move in the transaction that moves the prompts, so progress never needs a count of rows.
COUNT = _new.on_conflict_do_update(
    index_elements=[job_counters.c.job_id, job_counters.c.coordinator_id, job_counters.c.part],
    set_={name: job_counters.c[name] + _new.excluded[name] for name in _COUNTS},
)
NOTHING_COUNTED = dict.fromkeys(_COUNTS, 0)
