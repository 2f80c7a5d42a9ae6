"""What counts teach where some of them may be of prompts that were cut: on what SmolLM2 counted in real papers."""

from itertools import pairwise
from random import Random

from distllm.dispatcher.lessons import ENOUGH, MOST, Lessons
from distllm.dispatcher.recent import MOST_TEXTS, Recent
from distllm.domain.factors import UNLEARNT
from distllm.domain.tokens import most_tokens
from tests.domain.test_factors import PAPERS

BY_SIZE = sorted(PAPERS, key=lambda paper: most_tokens(paper.prompts[0]))


def taught(papers: list[int], cut: float = 1.0, larger_than: int = 10**9) -> Lessons:
    """What some papers have taught, those cut that are larger than a window."""
    lessons = Lessons(None)
    for number in papers:
        count = BY_SIZE[number].counts[0]
        read = count if count <= larger_than else round(cut * count)
        lessons.add(BY_SIZE[number].prompts[0], read, certain=False)
    return lessons


def test_the_order_in_which_papers_come_is_of_no_account() -> None:
    numbers = list(range(12))
    inorder, shuffled = taught(numbers), taught(Random(1).sample(numbers, 12))
    for paper in PAPERS:
        assert inorder.all.bounds(paper.prompts[0]) == shuffled.all.bounds(paper.prompts[0])


def test_a_paper_is_judged_by_those_of_half_its_size_if_they_are_enough() -> None:
    lessons = taught(list(range(10)))
    sizes = [most_tokens(BY_SIZE[number].prompts[0]) for number in range(10)]
    for paper in BY_SIZE:
        smaller = sum(2 * size <= most_tokens(paper.prompts[0]) for size in sizes)
        factors = lessons.about(paper.prompts[0])
        assert (factors.counts if factors else None) == (smaller if smaller >= ENOUGH else None)


def test_papers_that_were_cut_do_not_unteach_what_smaller_ones_taught() -> None:
    window = BY_SIZE[8].counts[0]
    lessons = taught(list(range(20, -1, -1)), cut=0.75, larger_than=window)
    assert lessons.all.counts < 21
    for paper in BY_SIZE[21:]:
        bounds = lessons.all.bounds(paper.prompts[0])
        assert bounds.lower <= paper.counts[0] <= bounds.upper


def test_what_the_servers_tokenizer_counted_teaches_of_every_size() -> None:
    lessons = Lessons(None)
    for paper in BY_SIZE[-ENOUGH:]:
        assert lessons.about(BY_SIZE[0].prompts[0]) is None
        lessons.add(paper.prompts[0], paper.counts[0], certain=True)
    assert lessons.about(BY_SIZE[0].prompts[0]) is lessons.all


def test_what_other_runs_taught_is_there_for_every_size() -> None:
    known = UNLEARNT
    for paper in PAPERS[:ENOUGH]:
        known = known.learnt(paper.prompts[0], paper.counts[0])
    assert Lessons(known).about(BY_SIZE[0].prompts[0]) is known


def test_a_run_learns_only_so_much() -> None:
    lessons = Lessons(None)
    while not lessons.full:
        lessons.add(PAPERS[0].prompts[0], PAPERS[0].counts[0], certain=False)
    assert lessons.all.counts == MOST


def test_what_may_be_cached_is_what_was_sent_before() -> None:
    recent, paper = Recent(()), "a paper " * 1000
    first, second = (paper, "What?"), (paper, "Where?")
    recent.add(first)
    assert recent.may_be_cached(1, first, document=True) == ()
    recent.add(second)
    assert recent.may_be_cached(1, second, document=True) == (paper, "Wh")
    other = ("a pamphlet " * 1000, "What?")
    assert recent.may_be_cached(2, other, document=True) == ("a pa",)
    for _ in range(MOST_TEXTS):
        recent.add(other)
    assert recent.may_be_cached(1, (paper, "Why?"), document=True) == ("a pa",)


def test_of_what_another_run_has_sent_all_may_be_cached() -> None:
    recent, asked = Recent({7}), ("", "What?")
    assert recent.may_be_cached(7, asked, document=True) == asked
    assert recent.may_be_cached(8, asked, document=False) == asked
    assert recent.may_be_cached(8, asked, document=True) == ()


def test_the_beginning_that_two_texts_share_is_found_wherever_they_part() -> None:
    texts = [("x" * 10_000)[:cut] + "y" + "x" * 100 for cut in (0, 1, 17, 4095, 4096, 4097, 9_999)]
    for one, other in pairwise(texts):
        recent = Recent(())
        recent.add((other,))
        (found,) = recent.may_be_cached(1, (one,), document=True)
        assert found == one[: one.index("y")]
