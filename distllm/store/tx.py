"""What a transaction can do, whatever the engine."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import Executable

from distllm.domain.errors import DistllmError

Row = tuple[Any, ...]
K = TypeVar("K")


class StoreError(DistllmError):
    """The database could not be written. `passing` if the same may succeed later: locked, full, or out of reach."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class Tx(ABC):
    """One transaction. Statements are compiled once in the life of the process.

    `counters` is the row of a job's counters that this transaction adds to: who adds at the same time should not
    wait for each other.
    """

    counters: int
    host: str
    """This machine's name, where others may use the database too; empty where there are no others."""

    only_one: bool
    """Whether nobody else can write until it has ended, nor coordinate at the same time."""

    @abstractmethod
    def run(self, statement: Executable, values: dict[str, Any]) -> int:
        """Execute, and return how many rows changed."""

    @abstractmethod
    def many(self, statement: Executable, rows: Iterable[dict[str, Any]]) -> None:
        """Execute once for each of `rows`."""

    @abstractmethod
    def rows(self, statement: Executable, values: dict[str, Any]) -> list[Row]:
        """Execute, and return all rows. The order of RETURNING is arbitrary."""

    @abstractmethod
    def value(self, statement: Executable, values: dict[str, Any]) -> Any:
        """Execute, and return the first column of the first row, None without a row."""

    @abstractmethod
    def alone(self, what: str) -> None:
        """Wait until no other transaction is alone with `what`, and have it until this one ends."""

    @abstractmethod
    def try_alone(self, what: str, which: int) -> bool:
        """Be alone with one of several things until this transaction ends; false if another one is."""

    @abstractmethod
    def announce(self) -> None:
        """Wake those who watch this database, once this is committed."""


def length(row: Iterable[object]) -> int:
    """How long the texts and blobs of a row are, in characters and bytes."""
    return sum(len(value) for value in row if isinstance(value, (str, bytes)))


def as_list(values: Iterable[object]) -> str:
    """A list as `one_of` and `none_of` want it bound."""
    return json.dumps(list(values))
