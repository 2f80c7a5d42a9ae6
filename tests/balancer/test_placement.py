"""All workers end together: who takes which paper."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.paces import Pace, overdue
from distllm.balancer.placement import Place, longest_in_time, projected_end
from distllm.domain.models import Paper

FAST = Pace(prefill=1000, decode=50, question_tokens=50, answer_tokens=100)
SLOW = Pace(prefill=100, decode=5, question_tokens=50, answer_tokens=100)


def paper(tokens: int, prompts: int = 5) -> Paper:
    return Paper(tokens, prompts, tokens)


def place(worker_id: int, pace: Pace, free_in: float = 0.0, *, wanting: bool = True, window: int = 100_000) -> Place:
    return Place(worker_id, pace, free_in, wanting, window)


def test_one_worker_alone_takes_whatever_is_longest() -> None:
    assert longest_in_time([place(1, SLOW)], [paper(40_000), paper(4_000)]) == {1: 40_000}


def test_the_slow_worker_leaves_the_longest_paper_to_the_fast_one() -> None:
    papers = [paper(40_000), paper(5_000), paper(5_000), paper(4_000)]
    bounds = longest_in_time([place(1, FAST), place(2, SLOW)], papers)
    assert bounds == {1: 40_000, 2: 0}


def test_with_much_to_do_the_slow_worker_takes_long_papers_too() -> None:
    papers = [paper(40_000)] * 50
    assert longest_in_time([place(1, FAST), place(2, SLOW)], papers) == {1: 40_000, 2: 40_000}


def test_a_seat_that_is_busy_still_is_counted_and_not_asked() -> None:
    bounds = longest_in_time([place(1, FAST, 5.0, wanting=False), place(2, SLOW)], [paper(40_000)])
    assert bounds == {2: 0}


def test_a_worker_that_hangs_keeps_the_others_from_no_paper_for_ever() -> None:
    hung = [place(1, FAST, overdue(10, 2000), wanting=False), place(2, SLOW)]
    assert longest_in_time(hung, [paper(40_000)]) == {2: 40_000}


def test_what_only_the_slow_worker_can_hold_is_left_to_nobody_else() -> None:
    places = [place(1, FAST, window=8_000), place(2, SLOW, window=64_000)]
    assert longest_in_time(places, [paper(40_000), paper(5_000)])[2] == 40_000
    assert longest_in_time(places, [paper(5_000)]) == {1: 5_000, 2: 0}


def test_what_nobody_can_hold_is_waited_for_by_nobody() -> None:
    places = [place(1, FAST, window=8_000), place(2, SLOW, window=8_000)]
    assert longest_in_time(places, [paper(40_000), paper(5_000)]) == longest_in_time(places, [paper(5_000)])


PACES = st.builds(
    Pace,
    prefill=st.floats(10, 10_000),
    decode=st.floats(1, 200),
    question_tokens=st.just(50.0),
    answer_tokens=st.floats(1, 2000),
)


def _as_one_worker_each(places: list[Place]) -> list[Place]:
    """The places of one worker have its one pace."""
    paces = {each.worker_id: each.pace for each in places}
    return [replace(each, pace=paces[each.worker_id]) for each in places]


PLACES = st.lists(
    st.builds(Place, st.integers(1, 5), PACES, st.floats(0, 1000), st.booleans(), st.just(60_000)),
    min_size=1,
    max_size=8,
).map(_as_one_worker_each)
PAPERS = st.lists(st.builds(Paper, st.integers(1, 50_000), st.integers(1, 20), st.integers(1, 60_000)), max_size=20)


@given(PLACES, PAPERS)
def test_somebody_can_always_answer_the_longest_paper_before_the_projected_end(
    places: list[Place], papers: list[Paper]
) -> None:
    papers.sort(key=lambda each: -each.tokens)
    end = projected_end(places, papers)
    if papers:
        assert min(each.free_in + each.pace.seconds(papers[0]) for each in places) <= end * (1 + 1e-9)
    assert end >= 0


@given(PLACES, PAPERS)
def test_nobody_takes_a_paper_that_ends_after_the_projected_end(places: list[Place], papers: list[Paper]) -> None:
    papers = sorted((Paper(each.tokens, each.prompts, each.tokens) for each in papers), key=lambda each: -each.tokens)
    end = projected_end(places, papers)
    for worker_id, bound in longest_in_time(places, papers).items():
        taken = next((each for each in papers if each.needs == bound), None)
        if taken is not None:
            mine = [each for each in places if each.worker_id == worker_id and each.wanting]
            soonest = min(mine, key=lambda each: each.free_in)
            same = [each for each in papers if each.needs == bound]
            assert min(soonest.free_in + soonest.pace.seconds(each) for each in same) <= end * (1 + 1e-6)


@given(PLACES, PAPERS)
def test_nobody_could_take_a_longer_paper_in_time(places: list[Place], papers: list[Paper]) -> None:
    papers.sort(key=lambda each: -each.needs)
    end = projected_end(places, papers) * (1 + 1e-9)
    for worker_id, bound in longest_in_time(places, papers).items():
        free_in, pace = min(
            ((each.free_in, each.pace) for each in reversed(places) if each.worker_id == worker_id and each.wanting),
            key=lambda each: each[0],
        )
        fitting = [each.needs for each in papers if free_in + pace.seconds(each) <= end]
        assert bound == (fitting[0] if fitting else 0)


@given(PLACES, st.integers(1, 50_000), st.integers(1, 20))
def test_more_work_never_ends_sooner(places: list[Place], tokens: int, prompts: int) -> None:
    one = [Paper(tokens, prompts, tokens)]
    assert projected_end(places, one * 2) >= projected_end(places, one) * (1 - 1e-9)
