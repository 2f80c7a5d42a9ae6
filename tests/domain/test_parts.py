"""How large parts may be, and the tree in which the answers about them are put together."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from distllm.domain.models import Template
from distllm.domain.parts import (
    LABEL_TOKENS,
    LEAST_PART_TOKENS,
    MERGE_FRAME_TOKENS,
    PART_NOTE_TOKENS,
    READING_FRAME_TOKENS,
    fan_in,
    merge_needs,
    merges,
    part_budget,
)
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.presets import (
    MERGE_SYSTEM,
    render_merge,
    render_merge_question,
    render_part_question,
    render_question,
    render_system,
)

questions = st.lists(st.tuples(st.integers(FRAME_TOKENS, 3000), st.integers(1, 4000)), min_size=1, max_size=5)
windows = st.integers(1, 40_000)
words = st.text(st.sampled_from("abcdefgh0123456789.,:-\n  \u00e9\u4e2d"), max_size=300)
templates = st.builds(Template, st.just("q"), words, st.none(), st.none() | words)


@given(st.integers(1, 3000), st.integers(2, 40))
def test_every_answer_goes_up_once_over_as_few_levels_and_merges_as_can_be(parts: int, most: int) -> None:
    below = parts
    levels = merges(parts, most)
    for level in levels:
        assert [i for merge in level for i in merge] == list(range(below))
        sizes = [len(merge) for merge in level]
        assert sizes == sorted(sizes)
        assert max(sizes) <= most
        assert max(sizes) - min(sizes) <= 1
        assert len(level) == math.ceil(below / most)
        below = len(level)
    assert below == 1
    fewest = next(depth for depth in range(1, 20) if most**depth >= parts)
    assert len(levels) == fewest


@given(st.integers(2, 3000), st.integers(2, 40))
def test_one_answer_alone_is_never_put_together_but_first_among_an_odd_number_of_pairs(parts: int, most: int) -> None:
    for level in merges(parts, most):
        alone = [i for i, merge in enumerate(level) if len(merge) == 1]
        assert alone == [] or (most == 2 and alone == [0])


def test_one_part_has_one_merge_of_one() -> None:
    assert merges(1, 5) == [[range(1)]]


@given(windows, questions)
def test_a_part_and_each_question_about_it_fit_the_window(window: int, asked: list[tuple[int, int]]) -> None:
    budget = part_budget(window, asked)
    frames = READING_FRAME_TOKENS + PART_NOTE_TOKENS
    if budget is None:
        assert any(frames + LEAST_PART_TOKENS + tokens + most > window for tokens, most in asked)
    else:
        assert budget >= LEAST_PART_TOKENS
        assert max(frames + budget + tokens + most for tokens, most in asked) == window


@given(windows, questions)
def test_a_merge_of_the_most_answers_to_any_question_fits_the_window(window: int, asked: list[tuple[int, int]]) -> None:
    inputs = fan_in(window, asked)
    longest = max(tokens + most for tokens, most in asked), max(most for _, most in asked)
    if inputs is None:
        assert merge_needs(2, (longest[0] - longest[1], longest[1])) > window
    else:
        assert inputs >= 2
        assert all(merge_needs(inputs, question) <= window for question in asked)
        assert merge_needs(inputs + 1, (longest[0] - longest[1], longest[1])) > window


@given(words, templates, st.integers(1, 999_999), st.integers(1, 999_999))
def test_what_is_said_of_a_part_stays_within_its_allowance(text: str, template: Template, i: int, n: int) -> None:
    sent = estimate_tokens(render_system(text)) + FRAME_TOKENS
    assert sent <= estimate_tokens(text) + READING_FRAME_TOKENS
    asked = estimate_tokens(render_part_question(template, i, n))
    assert asked <= estimate_tokens(render_question(template)) + PART_NOTE_TOKENS


@given(st.lists(words, min_size=1, max_size=8), templates)
def test_a_merge_takes_no_more_than_it_needs(answers: list[str], template: Template) -> None:
    question = estimate_tokens(render_merge_question(template)) + FRAME_TOKENS
    most = max(1, *map(estimate_tokens, answers))
    sent = estimate_tokens(MERGE_SYSTEM) + estimate_tokens(render_merge(template, answers)) + 2 * FRAME_TOKENS
    assert sent + most <= merge_needs(len(answers), (question, most))


def test_the_label_of_an_answer_stays_within_its_allowance_however_many_there_are() -> None:
    template = Template("q", "What?")
    sent = estimate_tokens(render_merge(template, ["a"] * 20_000))
    assert sent <= 20_000 * (1 + LABEL_TOKENS) + MERGE_FRAME_TOKENS


def test_a_merge_holds_every_answer_in_its_order_and_the_question_last() -> None:
    template = Template("q", "What is found?", merge="Make one list.")
    said = render_merge(template, ["It rains.", "It snows.", "It hails."])
    places = [said.index(each) for each in ("It rains.", "It snows.", "It hails.", "Make one list.")]
    assert all(before < after for before, after in pairwise(places))
    assert said.endswith(render_question(template))


def test_the_note_names_the_part_and_the_question_stands_last() -> None:
    said = render_part_question(Template("q", "What is found?"), 3, 12)
    assert "part 3 of 12" in said
    assert said.endswith("What is found?")
