"""Rates that are learnt bound how long a request may take, and where papers go: no answer alone may decide them."""

import pytest

from distllm.balancer.rates import learnt
from distllm.domain.models import Rates, Usage


def answer(seconds: float) -> Usage:
    """Of 1000 tokens that were read, and as many that were written, each in so many seconds."""
    return Usage(prompt_tokens=1000, completion_tokens=1000, prefill_seconds=seconds, decode_seconds=seconds)


@pytest.mark.parametrize(("seconds", "rate"), [(1e15, 0.1), (5e-324, 1e6), (2.0, 500.0)])
def test_a_rate_is_one_that_a_machine_can_have(seconds: float, rate: float) -> None:
    assert learnt(Rates(), answer(seconds)) == Rates(rate, rate)
    again = learnt(Rates(prefill=1e6, decode=0.1), answer(seconds))
    assert 0.09 <= (again.decode or 0) <= (again.prefill or 0) <= 1e6


@pytest.mark.parametrize("odd", [1e-9, 1e-3, 3600.0, 1e15])
def test_one_odd_answer_moves_a_rate_by_less_than_half(odd: float) -> None:
    known = learnt(Rates(), answer(2.0))
    moved = learnt(known, answer(odd))
    for old, new in ((known.prefill, moved.prefill), (known.decode, moved.decode)):
        assert old is not None
        assert new is not None
        assert 0.5 < new / old < 1.43


@pytest.mark.parametrize("seconds", [0.02, 200.0])
def test_a_machine_that_has_become_another_is_known_again_after_some_answers(seconds: float) -> None:
    rates = learnt(Rates(), answer(2.0))
    for _ in range(30):
        rates = learnt(rates, answer(seconds))
    assert rates.prefill == pytest.approx(1000 / seconds, rel=0.01)
    assert rates.decode == rates.prefill


def test_the_time_of_a_load_is_kept_until_the_next_and_a_look_at_what_is_loaded_is_none() -> None:
    loaded = learnt(Rates(), Usage(load_seconds=12.0))
    assert loaded.load == 12.0
    assert learnt(loaded, Usage(load_seconds=0.04)).load == 12.0
    assert learnt(loaded, Usage()).load == 12.0
    assert learnt(loaded, Usage(load_seconds=20.0)).load == 20.0
