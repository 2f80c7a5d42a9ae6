"""How far a batch is, and what is said of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.compose.batch import BatchProgress, Pace


@given(st.lists(st.tuples(st.floats(0, 100, width=32), st.integers(0, 5)), max_size=200), st.integers(0, 50))
def test_what_is_told_only_grows_and_its_rate_is_that_of_the_newest_steps(
    steps: list[tuple[float, int]], before: int
) -> None:
    total = before + sum(more for _, more in steps)
    pace, ticks, done = Pace(total), 0.0, before
    told = [pace.progress(done, 0, ticks)]
    for later, more in steps:
        ticks, done = ticks + later, done + more
        told.append(pace.progress(done, 0, ticks))
    grown = [step for step in told if step is not None]
    assert [step.done for step in grown] == sorted({step.done for step in grown})
    assert grown[-1].done == total
    assert all(step.rate >= 0 for step in grown)
    for step in grown:
        if step.eta is not None:
            assert step.eta * step.rate == pytest.approx(total - step.done)


def test_an_eta_is_what_the_pace_says() -> None:
    pace = Pace(100)
    assert pace.progress(40, 0, 7.0) == BatchProgress(40, 0, 100, 0.0, None)
    assert pace.progress(40, 0, 8.0) is None
    assert pace.progress(60, 1, 17.0) == BatchProgress(60, 1, 100, 2.0, 20.0)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (BatchProgress(0, 0, 2000, 0.0, None), "0 of 2,000 prompts"),
        (BatchProgress(1500, 0, 2000, 12.5, 40.0), "1,500 of 2,000 prompts, 12.5/s, 0:00:40 left"),
        (BatchProgress(3, 1, 40, 0.02, 1850.0), "3 of 40 prompts (1 failed), 1.2/min, 0:30:50 left"),
        (BatchProgress(40, 0, 40, 3.0, 0.0), "40 of 40 prompts"),
    ],
)
def test_progress_prints_as_people_say_it(step: BatchProgress, said: str) -> None:
    assert re.fullmatch(re.escape(said), str(step))
