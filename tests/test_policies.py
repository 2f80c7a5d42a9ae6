"""Policies by name: the built-in ones, and those of installed packages."""

import re
import sys
from pathlib import Path
from random import Random

import pytest

from distllm.balancer.policies import POLICIES, make_policy
from distllm.balancer.weights import shuffled
from distllm.config import Config
from distllm.domain.errors import DistllmError, UsageError
from tests.packages import install

CODE = """
class Mine:
    def plan(self, machines, rng): return []

class Planless:
    pass

class Unmade:
    def __init__(self): raise OSError("no file")
"""
NAMES = {
    "mine": "some_policies:Mine",
    "planless": "some_policies:Planless",
    "unmade": "some_policies:Unmade",
    "gone": "no_such_module:Gone",
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "some_policies", CODE, {"distllm.policies": NAMES})
    monkeypatch.delitem(sys.modules, "some_policies", raising=False)


def config(folder: Path, policy: str) -> Config:
    file = folder / "workers.json"
    file.write_text(f'{{"policy": "{policy}"}}')
    return Config.load(file, {})


def test_an_installed_policy_is_chosen_by_its_name(tmp_path: Path) -> None:
    policy = make_policy(config(tmp_path, "mine").policy)
    assert type(policy).__name__ == "Mine"
    for name, kind in POLICIES.items():
        assert type(make_policy(config(tmp_path, name).policy)) is kind


def test_a_name_that_nobody_offers_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    said = "workers.json: policy: must be one of affinity, gone, mine, planless, unmade, weighted"
    with pytest.raises(UsageError, match=re.escape(f"{said} (did you mean 'weighted'?), not 'weigthed'")):
        config(tmp_path, "weigthed")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("planless", "'planless' has no method `plan`"),
        ("unmade", r"'unmade' cannot be made \(OSError: no file\)"),
        ("gone", r"'gone' of the package some_policies cannot be imported \(ModuleNotFoundError"),
        ("never", "no installed package offers 'never'"),
    ],
)
def test_a_policy_that_cannot_be_had_is_one_line(name: str, said: str) -> None:
    with pytest.raises(DistllmError, match=said):
        make_policy(name)


def test_a_name_that_two_packages_offer_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"distllm.policies": {"mine": "other_policies:Mine"}}
    install(tmp_path / "other", monkeypatch, "other_policies", CODE, names)
    with pytest.raises(DistllmError, match=r"several packages offer 'mine'.*other_policies, some_policies"):
        make_policy("mine")


def test_a_weight_of_nothing_comes_last_and_breaks_nothing() -> None:
    assert shuffled(["none", "much"], [0.0, 1.0], Random(1)) == ["much", "none"]
