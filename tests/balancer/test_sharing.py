"""How workers are shared out: all of them, evenly, as far as each coordinator knows them."""

from collections.abc import Mapping, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.sharing import share_out

ME = 0


def mine(wanted: Mapping[int, Set[int]], owners: Mapping[int, int | None], me: int = ME) -> list[int]:
    return sorted(share_out(wanted, owners, me, lambda worker: worker))


def test_who_is_alone_has_all_that_is_free() -> None:
    assert mine({ME: {1, 2, 3}}, {1: None, 2: None, 3: None}) == [1, 2, 3]


def test_what_nobody_else_knows_is_shared_with_nobody() -> None:
    assert mine({ME: {1, 2}, 7: {3, 4}}, dict.fromkeys(range(1, 5))) == [1, 2]


def test_who_comes_later_is_given_half_and_those_first_that_sort_first() -> None:
    owners = dict.fromkeys(range(1, 5), ME)
    assert mine({ME: {1, 2, 3, 4}, 7: {1, 2, 3, 4}}, owners) == [3, 4]
    assert mine({ME: {1, 2, 3, 4}, 7: {1, 2, 3, 4}}, owners, 7) == [1, 2]


def test_who_knows_one_worker_is_given_that_one() -> None:
    assert mine({ME: {1, 2, 3}, 7: {3}}, dict.fromkeys((1, 2, 3), ME)) == [1, 2]


def test_what_somebody_keeps_who_wants_nothing_is_left_alone() -> None:
    assert mine({ME: {1, 2}}, {1: 7, 2: None}) == [2]


@st.composite
def fleets(draw: st.DrawFn) -> tuple[dict[int, set[int]], dict[int, int | None]]:
    """What up to five coordinators want, and whose it is: somebody's who wants it, or nobody's."""
    wanted = draw(st.dictionaries(st.integers(0, 4), st.sets(st.integers(0, 9), min_size=1), min_size=1))
    owners = {
        worker: draw(st.sampled_from([None, *(each for each in wanted if worker in wanted[each])]))
        for worker in range(10)
    }
    return wanted, owners


@given(fleets())
def test_all_that_is_wanted_is_somebodys_and_nobody_has_two_more_than_one_who_wants_them(
    fleet: tuple[dict[int, set[int]], dict[int, int | None]],
) -> None:
    wanted, owners = fleet
    shares = {each: share_out(wanted, owners, each, lambda worker: 0) for each in wanted}
    given_out = sorted(worker for share in shares.values() for worker in share)
    assert given_out == sorted(set.union(*wanted.values()))
    for rich in wanted:
        assert set(shares[rich]) <= wanted[rich]
        for poor in wanted:
            if wanted[poor].intersection(shares[rich]):
                assert len(shares[rich]) <= len(shares[poor]) + 1


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_those_who_know_the_same_have_as_many(count: int) -> None:
    wanted = {each: set(range(40)) for each in range(count)}
    sizes = {len(share_out(wanted, dict.fromkeys(range(40), 0), each, lambda worker: worker)) for each in range(count)}
    assert max(sizes) - min(sizes) <= 1
