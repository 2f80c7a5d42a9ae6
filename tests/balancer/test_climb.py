"""How many seats are of use: found for whatever way a server's speed goes with them, and kept to."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.climb import LONGEST_WAIT, WORTH_MORE, Climb, Window

Curve = Callable[[int], float]

SETTLED_WITHIN = 120
"""Windows, for limits up to 32."""


def linear(seats: int) -> float:
    return float(seats)


def flat(seats: int) -> float:
    return 5.0


def saturating(most: int) -> Curve:
    return lambda seats: float(min(seats, most))


def falling(most: int) -> Curve:
    """More seats than slots push each other's papers out of the cache."""
    return lambda seats: float(seats) if seats <= most else 0.4 * most


def batching(seats: int) -> float:
    return seats**0.7


def window(speed: float, together: int) -> Window:
    return Window(0, speed, 1.0, together)


def run(climb: Climb, curve: Curve, windows: int, slots: int | None = None) -> list[int]:
    """The seats of each window. Where `slots` are given, no more than so many write together."""
    seats = []
    for _ in range(windows):
        seats.append(climb.seats)
        climb.measured(window(curve(climb.seats), climb.seats if slots is None else min(slots, climb.seats)))
    return seats


def step(seats: int) -> int:
    return max(1, seats // 4)


@pytest.mark.parametrize("curve", [linear, batching])
@given(limit=st.integers(2, 32), known=st.none() | st.integers(1, 64))
def test_all_seats_are_used_where_each_of_them_gains(curve: Curve, limit: int, known: int | None) -> None:
    climb = Climb(limit, known)
    run(climb, curve, SETTLED_WITHIN)
    assert curve(limit) <= (1 + WORTH_MORE) * curve(climb.settled)


@given(limit=st.integers(2, 32), known=st.none() | st.integers(1, 64))
def test_one_seat_is_enough_where_more_gain_nothing(limit: int, known: int | None) -> None:
    climb = Climb(limit, known)
    run(climb, flat, SETTLED_WITHIN)
    assert climb.settled == 1


@pytest.mark.parametrize("kind", [saturating, falling])
@pytest.mark.parametrize("seen", [True, False])
@given(limit=st.integers(2, 32), slots=st.integers(1, 32), known=st.none() | st.integers(1, 64))
def test_as_many_seats_are_used_as_there_are_slots(
    kind: Callable[[int], Curve], seen: bool, limit: int, slots: int, known: int | None
) -> None:
    climb = Climb(limit, known)
    run(climb, kind(slots), SETTLED_WITHIN, slots if seen else None)
    best = min(limit, slots)
    if seen and known is None:
        assert climb.settled == best
    elif kind is saturating or seen:
        assert abs(climb.settled - best) <= step(max(climb.settled, best))
    else:
        # Far above the slots all numbers are equally bad, and each step down is taken.
        assert climb.settled <= best + step(best)


@pytest.mark.parametrize("curve", [linear, flat, batching, saturating(3), saturating(8), falling(1), falling(5)])
@given(limit=st.integers(2, 32))
def test_once_found_the_seats_stay_but_for_rare_trials_of_the_next(curve: Curve, limit: int) -> None:
    climb = Climb(limit)
    run(climb, curve, SETTLED_WITHIN)
    settled = climb.settled
    later = run(climb, curve, 10 * LONGEST_WAIT)
    assert climb.settled == settled
    assert all(abs(seats - settled) <= step(settled) for seats in later)
    assert sum(seats != settled for seats in later) <= 11


def test_slots_that_are_too_few_are_met_with_the_second_trial_at_the_latest() -> None:
    # Eight at once thrash a server with one slot, and so do two: only what is seen to write together tells.
    assert run(Climb(8), falling(1), 3, slots=1) == [8, 1, 2]


def test_a_server_that_sends_its_answers_whole_is_not_taken_for_one_with_one_slot() -> None:
    climb = Climb(8)
    assert run(climb, linear, 40, slots=1).count(1) == 1
    assert climb.settled == 8


def test_a_server_that_has_got_more_slots_is_found_out_in_time() -> None:
    climb = Climb(4)
    run(climb, falling(1), SETTLED_WITHIN)
    assert climb.settled == 1
    run(climb, linear, 3 * LONGEST_WAIT)
    assert climb.settled == 4


def test_a_loss_is_hopeless_before_its_window_ends() -> None:
    climb = Climb(4)
    climb.measured(window(100.0, 4))
    assert climb.seats == 3
    assert climb.hopeless(window(60.0, 3))
    assert not climb.hopeless(window(80.0, 3))
    climb.measured(window(60.0, 3))
    assert climb.seats == climb.settled == 4
    assert not climb.hopeless(window(60.0, 4))


@pytest.mark.parametrize("read", [0, 20_000])
def test_a_window_in_which_more_or_less_was_read_proves_nothing(read: int) -> None:
    # Its speed would be much higher or lower, as dear as one thinks that reading is.
    climb = Climb(4)
    climb.measured(Window(10_000, 1_000, 100.0, 4))
    climb.measured(Window(read, 1_000 + (10_000 - read) // 12, 100.0, 3))
    assert climb.settled == 4


def test_nothing_is_compared_with_what_was_measured_before_a_disturbance() -> None:
    climb = Climb(4)
    climb.measured(window(100.0, 4))
    climb.start_anew()
    assert climb.seats == 4
    run(climb, linear, SETTLED_WITHIN)
    assert climb.settled == 4


@given(
    limit=st.integers(2, 40),
    known=st.none() | st.integers(0, 99),
    told=st.lists(st.none() | st.tuples(st.floats(0.001, 1e6), st.integers(0, 99)), max_size=60),
)
def test_whatever_is_measured_there_is_a_seat_and_never_one_beyond_the_limit(
    limit: int, known: int | None, told: list[tuple[float, int] | None]
) -> None:
    climb = Climb(limit, known)
    for each in told:
        if each is None:
            climb.start_anew()
        else:
            climb.measured(window(*each))
        assert 1 <= climb.seats <= limit
        assert 1 <= climb.settled <= limit
