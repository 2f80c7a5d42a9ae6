"""Facts anywhere in long papers: each is read whole, and what is said of it goes up to the answer."""

import re
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.dispatcher.conftest import Bench
from tests.dispatcher.long_papers import long_paper, server, submit
from tests.fakes.stream import Seen

PAPERS, FACTS = 5, 20
"""How many papers, and facts of each."""
_FACT = re.compile(r"The code of canary (\d+) is (\d{6})\.")


class Said(NamedTuple):
    """An answer, and what waits for it."""

    prompt: int
    parent: int | None
    level: int
    answer: str
    proof: str


def told(seen: Seen) -> str:
    """Every fact of what was read, or of the answers that are put together; nothing else."""
    found = _FACT.findall(seen.system) or _FACT.findall(seen.question)
    return " ".join(f"The code of canary {name} is {code}." for name, code in found) or "No code is told here."


def with_facts(text: str, first: int, rng: Random) -> str:
    """The paper with facts of its own put between any two of its sentences."""
    sentences = re.split(r"(?<=\.)(\s+)", text)
    for number in range(first, first + FACTS):
        place = 2 * rng.randrange(len(sentences) // 2)
        sentences[place:place] = [f"The code of canary {number} is {code(number)}.", " "]
    return "".join(sentences)


def code(number: int) -> str:
    return f"{982451653 * (number + 1) % 10**6:06}"


async def test_facts_at_random_places_are_read_whole_and_are_in_what_is_put_together_at_every_level(
    bench: Bench, tmp_path: Path
) -> None:
    rng = Random(7)
    papers = [with_facts(long_paper(number), FACTS * number, rng) for number in range(PAPERS)]
    async with server(answer=told, context=1200) as fake:
        await submit(bench.database, tmp_path / "papers", papers, window=1200, max_tokens=250)
        await bench.work(fake)
    rows = bench.rows(
        "SELECT p.id, p.parent_id, p.level, r.answer, r.proof FROM prompts p JOIN results r ON r.prompt_id = p.id"
    )
    by_id = {row[0]: Said(*row) for row in rows}
    assert max(said.level for said in by_id.values()) >= 2
    for number in range(PAPERS * FACTS):
        fact = f"The code of canary {number} is {code(number)}."
        leaves = [said for said in by_id.values() if said.level == 0 and fact in said.answer]
        assert leaves, f"{fact} was in no part"
        for said in leaves:
            assert said.proof == "proven"
            above = said
            while above.parent is not None:
                above = by_id[above.parent]
                assert fact in above.answer, f"{fact} was lost at level {above.level}"
