"""What a test needs of the machine."""

import os
import sys

import pytest


def require(met: object, reason: str) -> None:
    """Skip a test where what it needs is missing. CI's Linux has all of it, so there it is a failure."""
    if not met:
        if os.environ.get("CI") == "true" and sys.platform == "linux":
            pytest.fail(reason)
        pytest.skip(reason)
