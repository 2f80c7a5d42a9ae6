"""Policies: which seats ask for what, and in which order."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.policies import POLICIES, Affinity, Machine, Weighted

WINDOWS = {"m": 1000}


def machine(number: int, *seats: int | None, weight: float = 1.0) -> Machine:
    return Machine(number, WINDOWS, weight, seats)


MACHINES = st.lists(
    st.builds(
        Machine,
        st.integers(1, 9),
        st.just(WINDOWS),
        st.floats(0.01, 1.0),
        st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=4).map(tuple),
    ),
    max_size=6,
    unique_by=lambda each: each.worker_id,
)


@pytest.mark.parametrize("name", POLICIES)
@given(machines=MACHINES, seed=st.integers())
def test_every_seat_asks_once_for_what_its_worker_has(name: str, machines: list[Machine], seed: int) -> None:
    asks = POLICIES[name]().plan(machines, Random(seed))
    assert Counter(ask.worker_id for ask in asks) == Counter(m.worker_id for m in machines for _ in m.seats)
    assert all(ask.windows == WINDOWS for ask in asks)


def test_a_seat_goes_on_with_what_it_has_read_before_any_begins_anew() -> None:
    asks = Affinity().plan([machine(1, None, 7), machine(2, None), machine(3, 8)], Random(1))
    assert {ask.reading for ask in asks[:2]} == {7, 8}
    assert [ask.reading for ask in asks[2:]] == [None, None]


def test_new_readings_go_to_workers_by_weight() -> None:
    rng, turns = Random(3), 5000
    machines = [machine(1, None, weight=0.8), machine(2, None, weight=0.2)]
    firsts = Counter(Affinity().plan(machines, rng)[0].worker_id for _ in range(turns))
    assert firsts[1] / turns == pytest.approx(0.8, abs=0.03)


def test_the_weighted_policy_places_one_prompt_at_a_time_and_forgets_what_was_read() -> None:
    asks = Weighted().plan([machine(1, 7, None), machine(2, 8)], Random(1))
    assert {(ask.limit, ask.reading, ask.shared) for ask in asks} == {(1, None, True)}
    rng, turns = Random(3), 5000
    machines = [machine(1, None, weight=0.75), machine(2, None, weight=0.25)]
    firsts = Counter(Weighted().plan(machines, rng)[0].worker_id for _ in range(turns))
    assert firsts[1] / turns == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("name", POLICIES)
def test_a_failed_prompt_is_left_to_others_only_where_there_are_others(name: str) -> None:
    policy = POLICIES[name]()
    assert {ask.patience for ask in policy.plan([machine(1, None)], Random(1))} == {0.0}
    # One without a free seat is another worker all the same.
    assert all(ask.patience > 0 for ask in policy.plan([machine(1, None), machine(2)], Random(1)))
