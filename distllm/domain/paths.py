"""What a path can be that a person gives."""

import re
from pathlib import Path

from distllm.domain.errors import UsageError


def no_address(path: Path) -> Path:
    """The path of a database, as it is.

    Raises UsageError where it was an address such as `postgresql://…`, of which a path has one slash left. It is
    not repeated in the error, since it may hold a password.
    """
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)):
        raise UsageError(f"the database must be a file, not a {found[1]} address: give a path, such as papers.db")
    return path
