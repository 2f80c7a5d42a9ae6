"""How long what is left takes: what the speeds promise at first, what the pace tells later."""

import pytest

from distllm.balancer.forecast import Seen, Speed, Work, forecast, seconds_for

SLOW, FAST = Speed(100.0, 10.0), Speed(300.0, 30.0)
PROMPT = Work(1000.0, 50.0)
"""Ten seconds to read and five to write for the slow one."""
NOTHING = Seen(0, Work(), 0.0)


def test_workers_share_what_is_left_so_that_they_end_together() -> None:
    assert seconds_for(PROMPT, [SLOW]) == pytest.approx(15.0)
    assert seconds_for(PROMPT * 8, [SLOW, FAST]) == pytest.approx(30.0)
    assert seconds_for(Work(), [SLOW, FAST]) == 0.0
    assert seconds_for(PROMPT, []) is None


def test_before_any_answer_the_speeds_tell_the_time() -> None:
    assert forecast(PROMPT * 20, PROMPT, [SLOW], NOTHING) == pytest.approx(300.0)


def test_with_many_answers_the_pace_tells_the_time() -> None:
    twice_as_long = Seen(64, PROMPT * 64, 64 * 30.0)
    found = forecast(PROMPT * 20, PROMPT, [SLOW], twice_as_long)
    assert found is not None
    assert 560 < found < 600
    few = forecast(PROMPT * 20, PROMPT, [SLOW], Seen(2, PROMPT * 2, 60.0))
    assert few is not None
    assert 300 < few < 400


def test_a_worker_that_is_stuck_makes_the_time_longer_and_longer() -> None:
    times = [forecast(PROMPT * 20, PROMPT, [SLOW], Seen(0, Work(), seconds)) for seconds in (0.0, 100.0, 1000.0)]
    assert times == sorted(times, key=lambda time: time or 0)  # type: ignore[comparison-overlap, arg-type]
    assert times[2] is not None
    assert times[2] > 2000


def test_papers_of_unlike_length_are_told_apart() -> None:
    long_ones_done = Seen(20, Work(40_000.0, 1000.0), 500.0)
    left = Work(2_000.0, 1000.0)
    found = forecast(left, PROMPT, [SLOW], long_ones_done)
    assert found is not None
    # By prompts alone it would be 500 s.
    assert found == pytest.approx(120, rel=0.1)


def test_without_speeds_the_pace_of_a_few_answers_is_all_there_is() -> None:
    assert forecast(PROMPT * 20, PROMPT, [], NOTHING) is None
    assert forecast(PROMPT * 20, PROMPT, [], Seen(2, PROMPT * 2, 30.0)) is None
    assert forecast(PROMPT * 20, PROMPT, [], Seen(4, PROMPT * 4, 60.0)) == pytest.approx(300.0)
    assert forecast(PROMPT * 20, PROMPT, [], Seen(4, Work(), 60.0)) is None


def test_where_nothing_is_left_no_time_is() -> None:
    assert forecast(Work(), PROMPT, [SLOW], NOTHING) == 0.0
