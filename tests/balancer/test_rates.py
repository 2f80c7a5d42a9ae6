"""Rates that are learnt bound how long a request may take: no server may tell one that gives it years."""

import pytest

from distllm.balancer.rates import learnt
from distllm.domain.models import Rates, Usage


@pytest.mark.parametrize(("seconds", "rate"), [(1e15, 0.1), (5e-324, 1e6), (2.0, 500.0)])
def test_a_rate_is_one_that_a_machine_can_have(seconds: float, rate: float) -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=1000, prefill_seconds=seconds, decode_seconds=seconds)
    assert learnt(Rates(), usage) == Rates(rate, rate)
    again = learnt(Rates(prefill=1e6, decode=0.1), usage)
    assert 0.09 <= (again.decode or 0) <= (again.prefill or 0) <= 1e6


def test_the_time_of_a_load_is_kept_until_the_next_and_a_look_at_what_is_loaded_is_none() -> None:
    loaded = learnt(Rates(), Usage(load_seconds=12.0))
    assert loaded.load == 12.0
    assert learnt(loaded, Usage(load_seconds=0.04)).load == 12.0
    assert learnt(loaded, Usage()).load == 12.0
    assert learnt(loaded, Usage(load_seconds=20.0)).load == 20.0
