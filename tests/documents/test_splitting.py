"""Texts that are too long: where they are cut, and that nothing is lost whatever they hold."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.documents.splitting import Span, split
from distllm.domain.tokens import estimate_tokens

SENTENCE = "The dam broke in March, and {} houses of the lower town were lost. "
PARAGRAPH = "".join(SENTENCE.format(number) for number in range(40, 48)).strip()
LISTED = "\n\n".join(
    f"[{n}] A. Author and B. Other. A study of the {n}th dam. Journal of Dams, 19{n}." for n in range(10, 50)
)

WHITE = ("\n", "\n\n", "\n \n", "\t", " " * 50, "\n" * 50)
WORDS = (
    "word ",
    "Word",
    ". ",
    ".",
    "? ",
    "et al. ",
    "e.g. ",
    "3.5",
    "\x00",
    "\ud800",
    "\u4e2d\u3002",
    "\u2026",
    "x" * 900,
)
LINES = ("# Head\n\n", "3.2 Methods\n\n", "RESULTS\n\n", "References\n\n", "```\n", "| a | b |\n")
broken = st.sampled_from(WHITE + WORDS + LINES)
hostile = st.lists(broken | st.text(max_size=12), max_size=120).map("".join)
COUNTS = (
    estimate_tokens,
    len,
    lambda text: len(text) // 4,
    lambda text: len(text) // 40 * 40,
    lambda text: 1 + len(text.split()),
)
counts = st.sampled_from(COUNTS)


def texts(text: str, spans: list[Span]) -> list[str]:
    return [text[span.first : span.last] for span in spans]


def document(*sections: str, paragraphs: int = 3) -> str:
    """A text of sections, each with that many paragraphs."""
    return "\n\n".join(f"{section}\n\n" + "\n\n".join([PARAGRAPH] * paragraphs) for section in sections)


def starts_of_parts(text: str, budget: int) -> list[str]:
    """The first line of each part."""
    return [part.split("\n")[0] for part in texts(text, split(text, budget, estimate_tokens))]


@given(hostile, st.integers(20, 400), counts)
def test_nothing_is_lost_and_each_part_is_within_the_budget(
    text: str, budget: int, count: Callable[[str], int]
) -> None:
    spans = split(text, budget, count)
    held = bytearray(len(text))
    for span, part in zip(spans, texts(text, spans), strict=True):
        assert part == part.strip() != ""
        assert count(part) <= budget
        held[span.first : span.last] = b"x" * (span.last - span.first)
    assert all(here or character.isspace() for here, character in zip(held, text, strict=True))
    for before, after in pairwise(spans):
        assert before.first < after.first
        assert before.last < after.last
        assert before.last <= after.first or count(text[after.first : before.last]) <= 0.2 * budget + 2


@given(hostile, st.integers(20, 400))
def test_only_what_stands_under_references_is_left_out(text: str, budget: int) -> None:
    spans = split(text, budget, estimate_tokens, references=False)
    held = sorted({place for span in spans for place in range(span.first, span.last)})
    lost = [place for place in range(len(text)) if place not in set(held) and not text[place].isspace()]
    assert not lost or "References" in text[: lost[0] + len("References")]
    assert all(estimate_tokens(part) <= budget for part in texts(text, spans))


def test_a_text_that_fits_is_one_part_and_a_blank_one_none() -> None:
    assert texts(f"\n {PARAGRAPH}\n", split(f"\n {PARAGRAPH}\n", 500, estimate_tokens)) == [PARAGRAPH]
    assert split(" \n\n\t\n", 256, estimate_tokens) == []
    assert split("", 256, estimate_tokens) == []


def test_a_character_that_no_part_holds_is_told() -> None:
    with pytest.raises(ValueError, match="a part of 5 tokens does not hold"):
        split("abc", 5, lambda text: 9 * len(text))


@pytest.mark.parametrize(
    "sections",
    [
        ("# Dams", "## Methods", "## Results", "## Discussion", "## Outlook"),
        ("1 Dams", "2 Methods", "3 Results of all", "4 Discussion", "5 Outlook"),
        ("I. DAMS", "II. METHODS OF ALL", "III. RESULTS OF ALL", "IV. DISCUSSION", "V. OUTLOOK"),
        ("DAMS IN SPRING", "METHODS OF ALL", "RESULTS OF ALL", "DISCUSSION OF ALL", "OUTLOOK"),
        ("Abstract", "Methods", "Results", "Discussion", "Conclusions"),
        ("Dams\n====", "Methods\n---", "Results\n---", "Discussion\n---", "Outlook\n---"),
    ],
)
def test_parts_begin_where_sections_do_and_repeat_nothing_there(sections: tuple[str, ...]) -> None:
    text = document(*sections)
    spans = split(text, estimate_tokens(text) // 4, estimate_tokens)
    assert [part.partition("\n\n")[0] for part in texts(text, spans)] == list(sections)
    assert all(before.last <= after.first for before, after in pairwise(spans))


def test_a_section_is_a_better_end_than_a_subsection_and_that_than_a_paragraph() -> None:
    for third, fourth in (("## Three", "### Four"), ("### Three", "## Four")):
        text = "\n\n".join(
            (document("## One", "## Two", paragraphs=2), document(third, paragraphs=1), document(fourth, paragraphs=4))
        )
        better = third if third.startswith("## ") else fourth
        assert starts_of_parts(text, estimate_tokens(text) * 3 // 4) == ["## One", better]
    text = document("## One", paragraphs=4) + "\n\n" + document("### One and a half", paragraphs=5)
    assert starts_of_parts(text, estimate_tokens(text) * 3 // 4) == ["## One", "### One and a half"]


def test_a_heading_stays_with_what_it_leads_to() -> None:
    text = document("## One", paragraphs=4) + "\n\n## Two\n\n### Two and more\n\n" + "\n\n".join([PARAGRAPH] * 4)
    for budget in range(260, 1400, 60):
        for part in texts(text, split(text, budget, estimate_tokens)):
            assert not part.rsplit("\n", 1)[-1].startswith("#")
            assert not part.startswith("### Two and more")


def test_the_parts_of_a_text_without_structure_are_even_and_few() -> None:
    text = " ".join(SENTENCE.format(number).strip() for number in range(1000, 1400))
    for budget in (300, 1000, 3000):
        sizes = [estimate_tokens(part) for part in texts(text, split(text, budget, estimate_tokens))]
        assert len(sizes) <= math.ceil(1.25 * estimate_tokens(text) / budget)
        assert min(sizes) >= 0.6 * max(sizes)


def test_what_is_read_again_is_whole_sentences_and_few_of_them() -> None:
    sentences = [SENTENCE.format(number).strip() for number in range(1000, 1400)]
    text = " ".join(sentences)
    for budget in (300, 1000, 3000):
        spans = split(text, budget, estimate_tokens)
        assert len(spans) > 1
        for before, after in pairwise(spans):
            again = text[after.first : before.last]
            assert again.count("The dam broke") == again.count("were lost.") in (1, 2, 3)
            assert again.startswith("The dam broke")
            assert estimate_tokens(again) <= max(0.03 * budget, 1.1 * estimate_tokens(sentences[0]))


def test_a_sentence_that_no_part_holds_is_cut_between_words_and_a_word_anywhere() -> None:
    words = "word " * 3000
    parts = texts(words, split(words, 300, estimate_tokens))
    assert all(set(part.split()) == {"word"} for part in parts)
    assert len(parts) <= estimate_tokens(words) / 300 * 1.3
    letters = "acgt" * 3000
    parts = texts(letters, split(letters, 300, estimate_tokens))
    assert len(parts) <= estimate_tokens(letters) / 300 * 1.3
    assert min(map(len, parts)) >= 0.7 * max(map(len, parts))


def test_a_table_that_no_part_holds_is_cut_between_its_rows() -> None:
    rows = "\n".join(f"| dam {n} | {n * 7} houses | {n * 3} lost |" for n in range(300))
    for part in texts(rows, split(rows, 400, estimate_tokens)):
        assert all(row.startswith("| dam ") and row.endswith(" lost |") for row in part.split("\n"))


def left_out(text: str) -> str:
    return "\n---\n".join(texts(text, split(text, 100_000, estimate_tokens, references=False)))


HEADINGS = ("## References", "References", "REFERENCES", "7. References", "VII. REFERENCES", "References\n==========")
OTHER_NAMES = ("Bibliography", "# Literature Cited", "References:", "**References**", "## 6. Works cited", "Literatur")


@pytest.mark.parametrize("heading", HEADINGS + OTHER_NAMES)
def test_references_are_left_out_under_whatever_heading(heading: str) -> None:
    assert left_out(f"{PARAGRAPH}\n\n{heading}\n\n{LISTED}") == PARAGRAPH


@pytest.mark.parametrize(
    ("heading", "appendix"),
    [
        ("## References", "## Appendix A: More dams"),
        ("References", "Appendix A: More dams"),
        ("REFERENCES", "APPENDIX"),
        ("6 References", "A Proofs of safety"),
        ("References", "Supplementary Material"),
        ("## References", "# A Second Paper"),
        ("References", "Acknowledgements"),
    ],
)
def test_what_follows_the_references_is_kept(heading: str, appendix: str) -> None:
    text = f"{PARAGRAPH}\n\n{heading}\n\n{LISTED}\n\n{appendix}\n\n{PARAGRAPH}"
    assert left_out(text) == f"{PARAGRAPH}\n---\n{appendix}\n\n{PARAGRAPH}"


def test_people_in_a_list_of_references_do_not_end_it() -> None:
    people = "\n\n".join(
        f"{letter}. Berger. Dams of the {letter} valley. 19{n}" for n, letter in enumerate("ABCDEFGH", 71)
    )
    assert left_out(f"{PARAGRAPH}\n\nReferences\n\n{people}") == PARAGRAPH


def test_a_section_of_that_name_that_lists_no_works_is_kept() -> None:
    for text in (f"{PARAGRAPH}\n\nLiterature\n\n{PARAGRAPH}", f"References\n\n1 Dams\n\n{PARAGRAPH}", "References"):
        assert left_out(text) == text


def test_a_text_of_references_alone_keeps_them() -> None:
    assert left_out(f"References\n\n{LISTED}") == f"References\n\n{LISTED}"


def test_references_stay_unless_they_are_to_be_left_out() -> None:
    text = f"{PARAGRAPH}\n\nReferences\n\n{LISTED}"
    assert texts(text, split(text, 100_000, estimate_tokens)) == [text]


SIGNS = ("." * 300_000, ' "' * 150_000, "?\u201d" * 150_000, "| " * 150_000, "\ud800 " * 150_000)
BLANKS = ("\n \xa0" * 100_000, "a" + "\xa0\n" * 150_000 + "b", "\n" + " " * 300_000 + "x", "a\n\n" * 100_000)
LETTERS = ("x" * 300_000, "word " * 60_000, "A. " * 100_000, PARAGRAPH * 600)
HEADS = ("# a\n" * 75_000, "```\n" * 75_000, "References\n\n" * 25_000, "1. x\n" * 60_000)


@pytest.mark.parametrize("text", SIGNS + BLANKS + LETTERS + HEADS, ids=lambda text: repr(text[:8]))
def test_a_long_text_is_counted_a_few_times_and_not_its_square(text: str) -> None:
    counted = 0

    def count(piece: str) -> int:
        nonlocal counted
        counted += len(piece)
        return (len(piece) + 2) // 3

    split(text, 1000, count, references=False)
    assert counted <= 16 * len(text)
