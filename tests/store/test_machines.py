"""Who runs no more is known to other processes of its machine, and to nobody else."""

import os
import subprocess
import sys

import pytest

from distllm.store.machines import is_gone, this_machine


@pytest.fixture
def ended() -> int:
    """A process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def elsewhere(place: int) -> str:
    """This machine, but for one of the four things that it is told by."""
    told = this_machine().split(" ")
    told[place] = "another"
    return " ".join(told)


def test_a_process_of_this_machine_is_gone_once_it_has_ended(ended: int) -> None:
    assert is_gone(this_machine(), ended)
    assert not is_gone(this_machine(), os.getpid())


def test_whoever_ran_before_the_machine_was_started_is_gone() -> None:
    assert is_gone(elsewhere(2), os.getpid())


@pytest.mark.parametrize("place", [0, 1, 3], ids=["name", "address", "namespace"])
def test_nothing_is_known_of_processes_elsewhere(place: int, ended: int) -> None:
    assert not is_gone(elsewhere(place), ended)


def test_nothing_is_known_of_who_did_not_tell_enough(ended: int) -> None:
    assert not is_gone("here", ended)
    assert not is_gone(" ".join(this_machine().split(" ")[:2]), ended)
