"""Who helps whom: an idle worker takes prompts that another has not sent, if that is worth reading the paper again."""

from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.help import LEAST_GAIN, Busy, best_help
from distllm.balancer.paces import Pace
from tests.balancer.test_placement import FAST, PACES, SLOW


def busy(pace: Pace, unsent: int, free_in: float = 1.0, tokens: int = 10_000, *, has_read: bool = True) -> Busy:
    return Busy(pace, free_in, tokens, unsent, has_read)


def test_the_idle_fast_worker_takes_most_of_what_the_slow_one_has_left() -> None:
    found = best_help(FAST, [busy(SLOW, 10)])
    assert found is not None
    index, count = found
    assert index == 0
    assert 5 < count < 10


def test_a_paper_that_is_not_begun_goes_over_whole() -> None:
    assert best_help(FAST, [busy(SLOW, 10, has_read=False)]) == (0, 10)


def test_the_one_that_gains_most_is_helped() -> None:
    found = best_help(FAST, [busy(FAST, 3), busy(SLOW, 10), busy(SLOW, 4)])
    assert found is not None
    assert found[0] == 1


def test_nobody_is_helped_where_reading_again_takes_longer_than_waiting() -> None:
    assert best_help(SLOW, [busy(FAST, 10)]) is None
    assert best_help(FAST, [busy(FAST, 3, tokens=40_000)]) is None
    assert best_help(FAST, []) is None


BUSY = st.builds(Busy, PACES, st.floats(0, 1000), st.integers(1, 50_000), st.integers(1, 30), st.booleans())


@given(PACES, st.lists(BUSY, max_size=6))
def test_no_other_number_of_prompts_from_anybody_would_gain_more(helper: Pace, others: list[Busy]) -> None:
    gains = {
        (index, count): (each.end() - end, end)
        for index, each in enumerate(others)
        for count in range(1, each.unsent + 1)
        for end in [max(helper.reading(each.tokens) + helper.answering(count), each.end(count))]
    }
    worth = [gain for gain, end in gains.values() if gain > LEAST_GAIN * end]
    found = best_help(helper, others)
    assert (found is None) == (not worth)
    if found is not None:
        assert gains[found][0] >= max(worth) * (1 - 1e-9)
