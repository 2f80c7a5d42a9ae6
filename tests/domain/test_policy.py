"""What costs a retry, how long to wait, and how long a call may take."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.domain.factors import Bounds
from distllm.domain.models import ErrorClass, Limits, Outcome, Usage
from distllm.domain.policy import (
    BACKOFF_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Again,
    Done,
    Failed,
    Lost,
    Refused,
    Verdict,
    backoff,
    limits,
    proof,
    verdict,
)

NOW = 1_800_000_000.0


def judge(
    kind: ErrorClass | None, failures: int = 0, max_retries: int = 3, losses: int = 0, deaths_alone: int = 0
) -> Verdict:
    outcome = Outcome(kind, kind and "why", "", None, None, None, Usage(), 1.0, None)
    return verdict(
        outcome,
        failures=failures,
        losses=losses,
        deaths_alone=deaths_alone,
        max_retries=max_retries,
        now=NOW,
        rng=Random(1),
    )


COSTS = {
    ErrorClass.INPUT: "refused",
    ErrorClass.CUT_INPUT: "refused",
    ErrorClass.BROKEN: "a retry",
    ErrorClass.BUSY: "a wait",
    ErrorClass.REFUSED: "a wait",
    ErrorClass.SETUP: "nothing",
    ErrorClass.LOST: "a loss",
    ErrorClass.RELEASED: "nothing",
}


@pytest.mark.parametrize("kind", ErrorClass)
def test_what_an_error_costs(kind: ErrorClass) -> None:
    judged = judge(kind)
    match COSTS[kind]:
        case "refused":
            assert judged == Refused()
        case "a retry":
            assert isinstance(judged, Again)
            assert judged.charged
            assert NOW < judged.at <= NOW + 1.5 * BACKOFF_SECONDS
        case "a wait":
            assert isinstance(judged, Again)
            assert not judged.charged
            assert NOW < judged.at <= NOW + 3 * BACKOFF_SECONDS
        case "a loss":
            assert isinstance(judged, Lost)
            assert NOW < judged.at <= NOW + 1.5 * BACKOFF_SECONDS
        case _:
            assert judged == Again(NOW, charged=False)


def test_an_answer_is_an_answer_however_often_it_failed_before() -> None:
    assert judge(None, failures=99) == Done()


def test_three_retries_are_four_attempts() -> None:
    judged = [judge(ErrorClass.BROKEN, failures) for failures in range(4)]
    assert [isinstance(each, Again) for each in judged] == [True, True, True, False]
    assert judged[3] == Failed()
    assert judge(ErrorClass.BROKEN, 0, max_retries=0) == Failed()


def test_losses_condemn_nobody_until_they_come_again_and_again_with_nothing_else_in_flight() -> None:
    judged = [judge(ErrorClass.LOST, losses=losses, deaths_alone=max(0, losses - 3)) for losses in range(8)]
    assert [isinstance(each, Lost) and each.alone for each in judged] == [False] * 3 + [True] * 4 + [False]
    assert isinstance(judged[7], Failed)
    assert judged[7].why is not None
    assert judged[7].why.endswith("why")
    assert isinstance(judge(ErrorClass.LOST, losses=99, deaths_alone=3), Lost)


@pytest.mark.parametrize("kind", [kind for kind in ErrorClass if kind is not ErrorClass.BROKEN])
def test_nothing_else_ever_uses_up_the_retries(kind: ErrorClass) -> None:
    assert not isinstance(judge(kind, failures=99), Failed)


@given(st.integers(0, 50), st.integers())
def test_a_wait_is_half_a_second_doubled_for_each_failure_give_or_take_half(failures: int, seed: int) -> None:
    middle = min(0.5 * 2**failures, LONGEST_BACKOFF_SECONDS)
    assert 0.5 * middle <= backoff(failures, Random(seed)) <= 1.5 * middle


def test_waits_grow_until_they_are_longest() -> None:
    waits = [sum(backoff(failures, Random(seed)) for seed in range(50)) for failures in range(12)]
    assert all(a < b for a, b in pairwise(waits[:10]))
    assert waits[11] / 50 < LONGEST_BACKOFF_SECONDS * 1.2


def test_a_wait_is_bounded_however_many_retries_a_person_allows() -> None:
    assert backoff(5000, Random(1)) <= 1.5 * LONGEST_BACKOFF_SECONDS


def test_the_limits_of_a_call_are_those_that_were_promised() -> None:
    assert limits(sent_tokens=40_000, max_tokens=500, request_timeout=300) == Limits(1100, 60, 1100 + 2000)
    known = limits(sent_tokens=40_000, max_tokens=500, request_timeout=300, prefill_rate=100, decode_rate=20)
    assert known == Limits(700, 60, 700 + 100)


@pytest.mark.parametrize(
    ("read", "bounds", "window", "held", "said"),
    [
        pytest.param(1000, (900, 1100), 8192, 0, "proven", id="more is read than a loss of a tenth would leave"),
        pytest.param(990, (900, 1100), 8192, 0, "unproven", id="a tenth may be missing"),
        pytest.param(990, (900, 1100), 8192, 1200, "proven", id="it has held as much before"),
        pytest.param(990, (900, 1100), 8192, 1199, "unproven", id="it has held almost as much before"),
        pytest.param(899, (900, 1100), 8192, 2000, "unproven", id="fewer than the bounds allow"),
        pytest.param(1101, (900, 1100), 8192, 2000, "unproven", id="more than the bounds allow"),
        pytest.param(1100, (900, 1100), 1200, 0, "proven", id="it fits its window"),
        pytest.param(1100, (900, 1100), 1199, 0, "unproven", id="it may not fit its window"),
        pytest.param(1100, (900, 1100), None, 0, "proven", id="nobody knows its window"),
    ],
)
def test_what_was_read_is_proven_only_by_figures(
    read: int, bounds: tuple[int, int], window: int | None, held: int, said: str
) -> None:
    between = Bounds(*bounds, floor=0)
    assert proof(read_tokens=read, bounds=between, max_tokens=100, window=window, held=held, loss=110) == said
