"""What machines that share a database call the workers that each of them sees."""

import pytest

from distllm.domain.hosts import seen_from, seen_here


@pytest.mark.parametrize(
    "identity", ["http://127.0.0.1:11434", "http://localhost:1234", "http://[::1]:80", "embedded://m"]
)
def test_what_only_one_machine_can_reach_is_told_apart_by_it(identity: str) -> None:
    here, there = seen_from("mac1", identity), seen_from("mac2", identity)
    assert len({identity, here, there}) == 3
    assert seen_here("mac1", here) == identity
    assert seen_here("mac1", there) == there


@pytest.mark.parametrize("identity", ["http://192.168.1.7:11434", "https://studio.local:443"])
def test_what_all_can_reach_is_one_worker_for_all(identity: str) -> None:
    assert seen_from("mac1", identity) == identity == seen_here("mac1", identity)


def test_where_nobody_else_shares_the_database_nothing_is_told_apart() -> None:
    assert seen_from("", "http://127.0.0.1:11434") == "http://127.0.0.1:11434"
