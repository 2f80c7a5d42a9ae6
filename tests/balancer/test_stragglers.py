"""A prompt that would be answered clearly sooner elsewhere is asked a second time."""

import math

from distllm.balancer.stragglers import Straggler, best_hedge


def test_a_straggler_is_asked_a_second_time_where_that_is_clearly_sooner() -> None:
    assert best_hedge([Straggler(rest=100, elsewhere=10)]) == 0
    assert best_hedge([Straggler(rest=10, elsewhere=10)]) is None
    assert best_hedge([Straggler(rest=10, elsewhere=100)]) is None
    # Within the error of any estimate.
    assert best_hedge([Straggler(rest=104, elsewhere=100)]) is None
    assert best_hedge([Straggler(rest=106, elsewhere=100)]) == 0
    # No second is worth the work of two.
    assert best_hedge([Straggler(rest=0.9, elsewhere=0.1)]) is None
    assert best_hedge([]) is None


def test_the_straggler_is_asked_a_second_time_that_gains_most() -> None:
    assert best_hedge([Straggler(30, 10), Straggler(100, 20), Straggler(80, 10)]) == 1


def test_who_tells_no_pace_is_asked_only_what_nobody_is_expected_to_answer() -> None:
    assert best_hedge([Straggler(1000, None)]) is None
    assert best_hedge([Straggler(1000, None), Straggler(math.inf, None)]) == 1
    assert best_hedge([Straggler(math.inf, 10), Straggler(20, 10)]) == 0
