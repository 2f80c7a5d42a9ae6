"""Bounds of a model's tokens: on what SmolLM2 counted in real papers, and on tokenizers made up for the purpose.

`real_counts.json` was written by `python -m benchmarks.tokens --papers FOLDER --write FILE`.
"""

import json
from pathlib import Path

import pytest

from benchmarks.tokens import Document, after_learning, of_the_next_question
from distllm.domain.factors import UNLEARNT, Factors
from distllm.domain.tokens import Makeup, makeup, most_tokens, weigh

HERE = Path(__file__).parent
PAPERS = [
    Document(name, tuple(Makeup(*each) for each in asked), tuple(Makeup(*each) for each in prompts), tuple(counts))
    for name, asked, prompts, counts in json.loads(HERE.joinpath("real_counts.json").read_text("utf-8"))
]
UNLIKE: dict[str, tuple[str, int]] = json.loads(HERE.joinpath("unlike_papers.json").read_text("utf-8"))
"""Texts of other kinds, and what SmolLM2 counts of twenty of each one after another."""

OTHER = Makeup(0.95, 0.2, 0.2, 0.3, 0.6, 1.5, 0.7, 0.3, 1.0, 1.0, 25)
"""The weights of a tokenizer with a large vocabulary, numbers in threes, and a wordy template."""

RUSSIAN = makeup("Методика эксперимента описана в предыдущей работе авторов. " * 300)


def learnt(count: int, weights: Makeup | None = None) -> Factors:
    factors = UNLEARNT
    for each in PAPERS[:count]:
        read = each.counts[0] if weights is None else round(weigh(each.prompts[0], weights))
        factors = factors.learnt(each.prompts[0], read)
    return factors


def test_before_learning_the_estimate_is_up_to_a_quarter_above_the_count() -> None:
    shares = [most_tokens(each.prompts[0]) / each.counts[0] for each in PAPERS]
    assert len(shares) >= 20
    assert min(shares) >= 1
    assert max(shares) <= 1.25


def test_after_five_answers_the_count_of_other_papers_is_between_bounds_within_a_fifth() -> None:
    found = list(after_learning(PAPERS, answers=5, draws=40))
    assert all(0.8 * count <= bounds.lower <= count <= bounds.upper <= 1.2 * count for bounds, count in found)
    assert all(bounds.floor < bounds.lower for bounds, _ in found)


def test_more_answers_make_the_bounds_no_wider() -> None:
    few, many = learnt(5), learnt(25)
    for each in PAPERS[25:]:
        (low, high), (lower, higher) = [
            (bounds.lower, bounds.upper) for bounds in (f.bounds(each.prompts[0]) for f in (many, few))
        ]
        assert high - low <= higher - lower


def test_after_one_answer_about_a_paper_the_next_is_known_within_a_fiftieth() -> None:
    for bounds, count in of_the_next_question(PAPERS):
        assert 0.98 * count <= bounds.lower <= count <= bounds.upper <= 1.02 * count


def test_a_tokenizer_unlike_the_common_ones_is_learnt_too() -> None:
    factors = learnt(8, OTHER)
    for each in PAPERS[8:]:
        bounds, count = factors.bounds(each.prompts[0]), weigh(each.prompts[0], OTHER)
        assert bounds.lower <= count <= bounds.upper


def test_what_is_unlike_all_that_was_counted_keeps_wide_bounds() -> None:
    bounds = learnt(30).bounds(RUSSIAN)
    assert bounds.lower < 0.24 * 17_700
    assert bounds.upper > 0.79 * 17_700


@pytest.mark.parametrize("kind", UNLIKE)
@pytest.mark.parametrize("papers", [1, 5, 35])
def test_what_is_unlike_a_paper_is_not_called_cut(kind: str, papers: int) -> None:
    text, count = UNLIKE[kind]
    assert learnt(papers).bounds(makeup(20 * text)).floor <= count


def test_no_bound_is_below_what_any_tokenizer_must_count() -> None:
    bounds = UNLEARNT.bounds(makeup("." * 1000), fewest=700)
    assert bounds.floor == 700
    assert bounds.lower == 700
    assert bounds.upper >= 700


def test_a_count_beyond_belief_is_believed_in_the_end() -> None:
    factors, twice = learnt(10), 2.0
    for each in PAPERS[10:20]:
        factors = factors.learnt(each.prompts[0], round(twice * each.counts[0]))
    for each in PAPERS[20:]:
        bounds = factors.bounds(each.prompts[0])
        assert bounds.lower <= twice * each.counts[0] <= bounds.upper


def test_factors_come_back_as_they_were_stored() -> None:
    factors = learnt(5)
    again = Factors.from_json(factors.to_json(), factors.counts)
    assert again is not None
    assert again.counts == 5
    for each in PAPERS:
        one, other = factors.bounds(each.prompts[0]), again.bounds(each.prompts[0])
        assert other.upper == pytest.approx(one.upper, rel=0.001)
        assert other.lower == pytest.approx(one.lower, rel=0.001)


@pytest.mark.parametrize("stored", ["[[1.0]]", "[]", "[[1,2,3],[1],[2,3],[4,5,6]]"])
def test_factors_of_other_parts_are_forgotten(stored: str) -> None:
    assert Factors.from_json(stored, 5) is None
