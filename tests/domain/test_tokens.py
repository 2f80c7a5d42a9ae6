"""An estimate from above, before any server has counted."""

from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.domain.models import Call
from distllm.domain.tokens import Makeup, estimate_tokens, fewest_tokens, makeup, makeup_of, texts_of

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


@pytest.mark.parametrize(("text", "tokens"), [("3.14159265", 10), ("{ } [ ] ( )", 6), ("a\nb\nc\n", 6)])
def test_digits_signs_and_lines_count(text: str, tokens: int) -> None:
    assert estimate_tokens(text) >= tokens


@pytest.mark.parametrize("row", ["." * 4000, "=" * 4000, "\n" * 4000, "\u2500" * 4000])
def test_rows_of_one_sign_are_fewer_tokens_than_signs(row: str) -> None:
    assert fewest_tokens(row) <= estimate_tokens(row) <= len(row) / 2


def test_base64_and_genes_are_neither_words_nor_nothing() -> None:
    gene = "ACGTTAGCATCGATCG" * 250
    assert 0.5 * len(gene) <= estimate_tokens(gene) <= 2 * len(gene)


def test_a_text_is_what_it_is_made_of() -> None:
    text = "The GNU libFoo of 1999, a \u201cgood\u201d one:\n\n  \u03b1 \u4f60\u597d\u4e16\u754c --- see\tTable"
    assert makeup(text) == Makeup(
        words=9, strange=0, long=0, capitals=3, digits=4, lines=1, signs=4, more=2, near=4, far=3
    )


@given(st.text(max_size=100), st.text(max_size=100))
def test_two_messages_are_made_of_both(first: str, second: str) -> None:
    both = makeup_of((first, second))
    assert both == Makeup(*(a + b for a, b in zip(makeup(first), makeup(second), strict=True)))._replace(messages=2)


def test_what_is_sent_is_each_message_that_is_not_empty() -> None:
    call = Call("m", "", "why?", 10, 0.0, 30, turns=(("user", "hello"), ("assistant", "yes")))
    assert texts_of(call) == ("hello", "yes", "why?")
    assert makeup_of(texts_of(call)).messages == 3


@given(st.text(st.sampled_from("abZ9.-'\n\t\x0b\x1c\x85\u00a0\u3000é\u4e2d\U0001f600 "), max_size=40))
def test_a_word_with_a_latin_letter_is_a_token_at_least_and_five_foreign_characters(text: str) -> None:
    words = sum(any(letter in ascii_letters for letter in word) for word in text.split())
    assert fewest_tokens(text) == words + sum(not letter.isascii() for letter in text) // 5
