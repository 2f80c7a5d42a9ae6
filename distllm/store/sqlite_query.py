"""A SELECT on SQLite that people have written.

An authorizer lets nothing pass but SELECT, reading columns and calling functions: `mode=ro` alone would let ATTACH
and PRAGMA through.
"""

import sqlite3
from pathlib import Path

from distllm.domain.errors import DistllmError, UsageError
from distllm.store.reads import found
from distllm.store.tx import Row, length

_LONGEST_CELL = 64 * 1024 * 1024
_LONGEST_PATTERN = 1_000
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


class SqliteStatement:
    """A statement on a connection that may only read."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(found(path), uri=True, isolation_level=None, check_same_thread=False)
        self._cursor = self._connection.cursor()

    def begin(self, text: str) -> list[str]:
        """Begin; return the names of its columns, none if it asks nothing."""
        self._connection.execute("PRAGMA query_only=ON")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_CELL)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _LONGEST_PATTERN)
        self._connection.text_factory = _text
        # Declared before the authorizer looks: SQLite declares them by a CREATE TABLE of its own.
        self._connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
        self._connection.set_authorizer(_only_reading)
        self._cursor.execute(text)
        return [name for name, *_ in self._cursor.description or ()]

    def rows(self, most: int, longest: int) -> list[Row]:
        """The next rows, `most` of them or so many that they are `longest` characters; none at the end."""
        rows: list[Row] = []
        size = 0
        while len(rows) < most and size < longest:
            row = self._cursor.fetchone()
            if row is None:
                break
            rows.append(row)
            size += length(row)
        return rows

    def interrupt(self) -> None:
        """Let the call that goes on fail, unless it is in a function that cannot be interrupted."""
        self._connection.interrupt()

    def let_go(self) -> None:
        """Give no more rows, and keep the log from being emptied no longer."""
        self._cursor.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def refusal(self, error: BaseException) -> DistllmError | None:
        """What people are told of an error; None for one that it does not know."""
        if not isinstance(error, (sqlite3.Error, sqlite3.Warning, UnicodeError)):
            return None
        said = "it is not valid UTF-8" if isinstance(error, UnicodeError) else str(error)
        if "image is malformed" in said:
            return DistllmError(f"the database is damaged: {said}; `distllm db check` tells how far")
        remedy = "only SELECT statements are"
        if said.startswith("no such"):
            remedy = "`select name, sql from sqlite_master` shows what there is"
        elif "too big" in said:
            remedy = "take less of it at once, with substr()"
        return UsageError(f"this query cannot be run: {' '.join(said.split()).rstrip('.')}; {remedy}")


def _only_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


# Another program may have written what is no UTF-8.
def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
