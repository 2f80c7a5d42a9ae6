"""A fact lies whole in one part at least, wherever in a long text it stands."""

import textwrap
from random import Random

import pytest

from tests.documents.canaries import BUDGETS, facts, missing, planted

FACTS = 100
SUBJECTS = (
    "the river",
    "a dam of clay",
    "each of the forty houses",
    "Berger et al.",
    "the model (cf. Eq. 4)",
    "no one",
)
VERBS = ("carried", "was measured at", "did not explain", "exceeded by 3.5 %", "held, e.g. in Fig. 2,", "came before")
OBJECTS = (
    "the valley",
    "12.4 m of water",
    "what J. R. Stein had found",
    "the lower town",
    "a loss of 7 in 10",
    "spring",
)


def sentence(rng: Random) -> str:
    words = [rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS)]
    while rng.random() < 0.5:
        words += [
            rng.choice(("and", "while", "although")),
            rng.choice(SUBJECTS),
            rng.choice(VERBS),
            rng.choice(OBJECTS),
        ]
    said = " ".join(words)
    return said[0].upper() + said[1:] + "."


def paragraph(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.1:
        return "\n".join(
            f"| dam {n} | {rng.randrange(100)} m | {rng.choice(OBJECTS)} |" for n in range(rng.randrange(2, 40))
        )
    if kind < 0.2:
        return "\n".join(f"- {sentence(rng)}" for _ in range(rng.randrange(2, 9)))
    if kind < 0.3:
        return "\n\n".join(
            rng.choice(("\u2212 \u2225v\u2225", "2\u03c3 2", "Z", "exp", "(29)")) for _ in range(rng.randrange(2, 9))
        )
    return " ".join(sentence(rng) for _ in range(rng.randrange(1, 14)))


def paper(rng: Random, heading: str) -> str:
    """A paper of about 40,000 tokens, whose sections are headed so."""
    sections = []
    for number in range(1, 13):
        sections.append(heading.format(number=number, words=rng.choice(OBJECTS).title()))
        sections += [paragraph(rng) for _ in range(rng.randrange(5, 45))]
    return "\n\n".join(sections)


@pytest.mark.parametrize("heading", ["## {number} {words}", "{number}. {words}", "PART OF DAMS", "{words}"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_fact_put_anywhere_lies_whole_in_one_part(heading: str, budget: int) -> None:
    rng = Random(f"{heading} {budget}")
    known = facts(rng, FACTS)
    assert missing(planted(paper(rng, heading), known, rng), known, budget) == []


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_fact_that_runs_over_lines_lies_whole_in_one_part(budget: int) -> None:
    rng = Random(budget)
    known = facts(rng, FACTS)
    text = planted("\n\n".join(" ".join(sentence(rng) for _ in range(30)) for _ in range(60)), known, rng)
    wrapped = "\n\n".join(textwrap.fill(block, 72, break_on_hyphens=False) for block in text.split("\n\n"))
    assert missing(wrapped, known, budget) == []


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_fact_in_a_text_without_paragraphs_lies_whole_in_one_part(budget: int) -> None:
    rng = Random(budget)
    known = facts(rng, FACTS)
    text = planted(" ".join(sentence(rng) for _ in range(1800)), known, rng)
    assert missing(text, known, budget) == []
