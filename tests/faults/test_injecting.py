"""A fault that cannot be injected is no fault that was survived."""

import sys

import pytest

from tests.faults.conftest import succeeds
from tests.required import require


def test_a_person_may_lack_what_injects_a_fault_and_linux_in_ci_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such tool"):
        require(False, "no such tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such tool"):
        require(False, "no such tool")
    require(True, "no such tool")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(pytest.skip.Exception):
        require(False, "no such tool")


def test_a_tool_that_is_missing_or_fails_does_not_succeed() -> None:
    assert succeeds("true")
    assert not succeeds("false")
    assert not succeeds("a-tool-that-nobody-has")
