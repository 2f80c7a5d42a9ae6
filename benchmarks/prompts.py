"""What all contenders ask: the questions of a preset about made-up papers, as distllm itself puts them."""

import asyncio
from pathlib import Path
from random import Random
from typing import NamedTuple

from distllm.domain.models import Template
from distllm.domain.places import DatabasePlace
from distllm.presets import Preset, load_preset, render_question, render_system
from distllm.store.reads import Record, open_reader

PAPERS = Path(__file__).parents[1] / "jobs" / "quickstart" / "papers"
SENTENCE_WORDS = 14


class Prompt(NamedTuple):
    """One request: a document, and a question about it."""

    system: str
    question: str


def research() -> Preset:
    """The preset whose five questions are asked."""
    return load_preset("research", [])


def vocabulary() -> list[str]:
    """Words of real papers, each as often as it is used, so that they make as many tokens as words do."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(PAPERS.glob("*.[mt][dx]*"))]
    return [word for text in texts for word in text.split() if word.isalpha()]


def made_up_paper(words: list[str], number: int, characters: int) -> str:
    """A text like no other from its first words on."""
    random = Random(number)
    text, size = [], 0
    while size < characters:
        sentence = " ".join(random.choices(words, k=SENTENCE_WORDS)).capitalize() + "."
        text.append(sentence)
        size += len(sentence) + 1
    return " ".join(text)[:characters]


def prompts_of(place: DatabasePlace, templates: tuple[Template, ...]) -> list[Prompt]:
    """All prompts of the one job in a database, document by document."""
    texts = [row["text"] for row in ask(place, "SELECT text FROM documents ORDER BY id")]
    questions = [render_question(template) for template in templates]
    return [Prompt(system, question) for system in map(render_system, texts) for question in questions]


def ask(place: DatabasePlace, statement: str) -> list[Record]:
    """All rows of a statement."""
    return asyncio.run(_ask(place, statement))


async def _ask(place: DatabasePlace, statement: str) -> list[Record]:
    async with open_reader(place) as reader:
        return await reader.rows(statement)
