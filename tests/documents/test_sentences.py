"""Where sentences end, and where they only seem to."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.documents.sentences import sentence_starts


def sentences(text: str) -> list[str]:
    starts = [*sentence_starts(text, 0, len(text)), len(text)]
    return [text[first:last].strip() for first, last in pairwise(starts)]


@pytest.mark.parametrize(
    "text",
    [
        "It was shown by Smith et al. Later work agrees, as Berger et al. (2019) found.",
        "The dam is shown in Fig. 3 and in Figs. 4 and 5, the river in Tab. 2.",
        "By Eq. (4) and Sec. 2.1, the loss is 3.14 m, i.e. Not more than a tenth.",
        "The dam of J. R. Berger, and that of Dr. Ada Stein, held.",
        "See e.g. Stein, cf. Berger, and vol. 3, pp. 4-9, no. 7 of the journal.",
        "The p value is .05 (cf. Table 3), approx. Half of it.",
        "It asks why? and goes on... without an end.",
        "Der Damm hielt z. B. Ein Jahr.",
    ],
)
def test_one_sentence_stays_whole(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    "parts",
    [
        ["The dam broke.", "Forty houses were lost."],
        [
            "Did it break?",
            "It did!",
            "\u201cIt did.\u201d",
            "(Nobody knows why.)",
            "The water rose [12].",
            "So it was.",
        ],
        ["It weighs 3.5 kg.", "2 of 3 fell.", "The second fell in 1972.", "Nobody saw it\u2026", "Some heard it."],
        ["Über den Damm.", "Ärger gab es.", "\u4e2d\u6587\u3002", "\u4e2d\u6587\uff01"],
    ],
)
def test_sentences_end_with_their_stops_and_closing_signs(parts: list[str]) -> None:
    assert sentences(" ".join(parts)) == parts


def test_a_line_end_is_a_blank_within_a_sentence() -> None:
    text = "The dam broke\nin March. It was\nnever built again."
    assert sentences(text) == ["The dam broke\nin March.", "It was\nnever built again."]


@pytest.mark.parametrize(
    "items",
    [
        ["Found were:", "- a shoe", "- two hats\n  of felt", "* one coat", "\u2022 a dog"],
        ["1. Wash it", "2. Dry it", "3) Fold it", "[4] Keep it"],
        ["| a | b |", "| 1 | 2 |"],
        ["name | size", "dam | 12 m"],
    ],
)
def test_items_of_lists_and_rows_of_tables_stand_alone(items: list[str]) -> None:
    assert sentences("\n".join(items)) == items


@given(st.text(st.sampled_from("Ab1.?! \n-|\u2026\u3002\"')"), max_size=80))
def test_sentences_hold_the_whole_text_in_order(text: str) -> None:
    starts = list(sentence_starts(text, 0, len(text)))
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert all(start < len(text) for start in starts[1:])
