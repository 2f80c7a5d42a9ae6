"""Weights, and choices by weight: checked as the statistics that they promise."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.weights import shuffled, weigh

SHARES = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize(
    ("availability", "success", "seconds", "best", "weight"),
    [
        (1.0, 1.0, 10.0, 10.0, 1.0),
        (0.0, 1.0, 10.0, 10.0, 0.6),
        (1.0, 0.0, 10.0, 10.0, 0.6),
        (1.0, 1.0, 20.0, 10.0, 0.9),
        (0.5, 0.5, 40.0, 10.0, 0.45),
        (1.0, 1.0, None, 10.0, 1.0),
        (1.0, 1.0, None, None, 1.0),
    ],
)
def test_four_tenths_each_for_free_seats_and_success_and_two_for_speed(
    availability: float, success: float, seconds: float | None, best: float | None, weight: float
) -> None:
    found = weigh(availability=availability, success_rate=success, seconds=seconds, best_seconds=best)
    assert found == pytest.approx(weight)


@given(SHARES, SHARES, st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_a_weight_is_never_nothing_and_never_more_than_one(a: float, s: float, seconds: float, best: float) -> None:
    assert 0 < weigh(availability=a, success_rate=s, seconds=seconds, best_seconds=best) <= 1.0000001


@given(SHARES, SHARES, st.floats(0.001, 1e6), SHARES)
def test_who_is_freer_or_fails_less_weighs_no_less(a: float, s: float, seconds: float, more: float) -> None:
    plain = weigh(availability=a, success_rate=s, seconds=seconds, best_seconds=0.001)
    assert weigh(availability=max(a, more), success_rate=s, seconds=seconds, best_seconds=0.001) >= plain
    assert weigh(availability=a, success_rate=max(s, more), seconds=seconds, best_seconds=0.001) >= plain


@given(st.lists(st.floats(0.01, 1.0), max_size=20), st.integers())
def test_a_choice_leaves_nobody_out(weights: list[float], seed: int) -> None:
    items = list(range(len(weights)))
    assert sorted(shuffled(items, weights, Random(seed))) == items


def test_who_comes_first_is_chosen_by_weight() -> None:
    weights, rng, turns = [0.9, 0.6, 0.3], Random(5), 20_000
    firsts = Counter(shuffled("abc", weights, rng)[0] for _ in range(turns))
    for name, weight in zip("abc", weights, strict=True):
        # Five standard deviations are 0.018 of the turns at most.
        assert firsts[name] / turns == pytest.approx(weight / sum(weights), abs=0.018)


def test_who_comes_second_is_chosen_by_weight_among_the_others() -> None:
    rng, turns = Random(6), 20_000
    orders = [shuffled("abc", [0.9, 0.6, 0.3], rng) for _ in range(turns)]
    after_a = Counter(order[1] for order in orders if order[0] == "a")
    assert after_a["b"] / after_a.total() == pytest.approx(2 / 3, abs=0.025)
