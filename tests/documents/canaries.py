"""Made-up facts, put anywhere into a text to see which part of it they come out in."""

from collections.abc import Sequence
from random import Random

from distllm.documents.splitting import split
from distllm.domain.tokens import estimate_tokens

BUDGETS = (256, 300, 700, 1500, 4000, 12_000)
_THINGS = (
    "vault",
    "lighthouse",
    "orchard",
    "ferry",
    "archive",
    "kiln",
    "aqueduct",
    "observatory",
    "windmill",
    "cistern",
)
_PLACES = ("Quellmar", "Ostrava Bay", "Tindelhof", "Marrowby", "St. Orsin", "Upper Veld", "Caldreth", "Nimswick")
_MEASURES = (
    "holds {} barrels",
    "was closed for {} days",
    "lost {}.5 % of its tiles",
    "lies {} m above the sea, cf. Fig. 9,",
)


def facts(rng: Random, number: int) -> list[str]:
    """So many different sentences, with what sentences are wrongly cut at."""
    return [
        f"The {rng.choice(_THINGS)} of {rng.choice(_PLACES)} {rng.choice(_MEASURES).format(1000 + i)} since {1700 + i}."
        for i in range(number)
    ]


def planted(text: str, facts: Sequence[str], rng: Random) -> str:
    """The text with each fact at a place of its own, be it in the middle of a word."""
    places = sorted(rng.sample(range(len(text) + 1), len(facts)))
    pieces = [text[first:last] for first, last in zip([0, *places], [*places, len(text)], strict=True)]
    return pieces[0] + "".join(f" {fact} {piece}" for fact, piece in zip(facts, pieces[1:], strict=True))


def missing(text: str, facts: Sequence[str], budget: int) -> list[str]:
    """The facts that no part of the text holds whole, whatever its line ends."""
    parts = [" ".join(text[span.first : span.last].split()) for span in split(text, budget, estimate_tokens)]
    assert len(parts) >= estimate_tokens(text) / budget
    return [fact for fact in facts if not any(fact in part for part in parts)]
