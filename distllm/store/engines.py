"""What of PostgreSQL is imported only by those who use it."""

from importlib import import_module
from typing import Any

from distllm.domain.errors import DistllmError


def postgres(module: str) -> Any:
    """A module of the store on PostgreSQL; DistllmError where the packages for it are missing."""
    try:
        return import_module(f"distllm.store.postgres.{module}")
    except ModuleNotFoundError as error:
        raise DistllmError(
            f"a database on PostgreSQL needs the package {error.name}: install distllm-queue[postgres]"
        ) from error
