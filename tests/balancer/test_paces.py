"""How fast a worker is taken to be: as it has told, and before that like the others, unless it is silent for long."""

import pytest

from distllm.balancer.paces import Flight, Pace, overdue, slowed, told, usual
from distllm.domain.models import Paper, Rates

FAST = Pace(prefill=1000, decode=50, question_tokens=50, answer_tokens=100)
SLOW = Pace(prefill=100, decode=5, question_tokens=50, answer_tokens=100)


def test_a_paper_takes_the_time_to_read_it_and_to_answer() -> None:
    paper = Paper(10_000, 5, 10_000)
    assert FAST.seconds(paper) == 10 + 5 * (0.05 + 2)
    assert SLOW.seconds(paper) == pytest.approx(10 * FAST.seconds(paper))


def test_who_is_overdue_is_waited_for_less_and_less() -> None:
    assert overdue(10, 4) == 6
    assert overdue(10, 30) == 10


@pytest.mark.parametrize("rates", [None, Rates(), Rates(prefill=100.0), Rates(decode=5.0)])
def test_half_a_pace_is_none(rates: Rates | None) -> None:
    assert told(rates, 100) is None


def test_what_a_worker_has_told_is_believed() -> None:
    pace = told(Rates(100.0, 5.0), 100)
    assert pace is not None
    assert (pace.prefill, pace.decode, pace.answer_tokens) == (100.0, 5.0, 100)


def test_a_new_worker_is_taken_to_be_like_the_others() -> None:
    pace = usual([FAST, SLOW], 100)
    assert (pace.prefill, pace.decode) == (550, 27.5)


def test_while_nobody_has_told_all_are_alike() -> None:
    assert usual([], 100).prefill > 0


def test_a_silent_worker_is_slower_the_longer_it_is_silent() -> None:
    # 10 s to read, and 2.05 to answer.
    assert slowed(FAST, []) == slowed(FAST, [Flight(10_000, 11.0)]) == FAST
    one, two = (slowed(FAST, [Flight(10_000, passed)]) for passed in (50.0, 200.0))
    assert FAST.prefill > one.prefill > two.prefill
    assert one.prefill / one.decode == pytest.approx(FAST.prefill / FAST.decode)
    # So slow that it explains the silence, and that it is still to be waited for.
    flight = Flight(10_000, 50.0)
    assert flight.expected(one) == pytest.approx(50.0 + flight.left(FAST))
    # The longest silence counts.
    assert slowed(FAST, [Flight(10_000, 1.0), flight]) == one
