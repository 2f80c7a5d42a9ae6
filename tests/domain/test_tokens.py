"""An estimate from above, before any server has counted."""

from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.domain.tokens import estimate_tokens, fewest_tokens

SENTENCE = "The dam broke in March 1972, and forty houses of the lower town were lost (see Table 3).\n"


def test_nothing_is_no_token() -> None:
    assert estimate_tokens("") == 0


def test_a_sentence_is_more_than_its_words_and_less_than_its_characters() -> None:
    assert len(SENTENCE.split()) < estimate_tokens(SENTENCE) < len(SENTENCE) / 2


def test_a_paper_is_estimated_as_the_sum_of_its_sentences() -> None:
    one, many = estimate_tokens(SENTENCE), estimate_tokens(SENTENCE * 1000)
    assert abs(many - 1000 * one) <= 500


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_is_never_fewer_tokens(first: str, second: str) -> None:
    both = estimate_tokens(f"{first}\n{second}")
    assert both >= max(estimate_tokens(first), estimate_tokens(second))
    assert abs(both - estimate_tokens(first) - estimate_tokens(second)) <= 3


@pytest.mark.parametrize("text", ["你好世界", "привет", "αβγ", "∑∫√", "🙂🙂"])
def test_a_foreign_character_is_at_least_a_token(text: str) -> None:
    assert estimate_tokens(text) >= len(text)


@pytest.mark.parametrize("text", ["3.14159265", "{}[]();:", "\n\n\n\n"])
def test_digits_signs_and_newlines_count(text: str) -> None:
    assert estimate_tokens(text) >= 0.8 * len(text)


@given(st.text(st.sampled_from("abZ9.-'\n\t\x0b\x1c\x85\u00a0\u3000é\u4e2d\U0001f600 "), max_size=40))
def test_a_word_with_a_latin_letter_is_a_token_at_least_and_five_foreign_characters(text: str) -> None:
    words = sum(any(letter in ascii_letters for letter in word) for word in text.split())
    assert fewest_tokens(text) == words + sum(not letter.isascii() for letter in text) // 5
