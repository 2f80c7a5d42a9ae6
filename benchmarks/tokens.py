"""How near the bounds of a text's tokens come to what a real tokenizer counts, before it has counted any and after.

    uv run python -m benchmarks.tokens ~/papers
    uv run --group test python -m benchmarks.tokens --papers /tmp/papers

The documents are read as `distllm submit` reads them, and counted by a llama.cpp server with the packaged model
(SmolLM2), each with a question about it. Before learning nothing is known of the tokenizer. Then the bounds learn from
a few documents, drawn at random again and again, and are tried on all others. At last the count of one question about a
document is known, and the bounds are of the next question about it.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

from benchmarks.llama import llama_servers, tokens_of
from benchmarks.prompts import Prompt, research
from distllm.documents import DocumentReader, find_files
from distllm.domain.factors import UNLEARNT, Bounds, around
from distllm.domain.tokens import Makeup, makeup, makeup_of, most_tokens
from distllm.presets import render_question, render_system

MOST_CHARACTERS = 1_000_000


class Document(NamedTuple):
    """A document: what the questions and the prompts about it are made of, and the tokens of each prompt."""

    name: str
    asked: tuple[Makeup, ...]
    prompts: tuple[Makeup, ...]
    counts: tuple[int, ...]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders of documents")
    parser.add_argument(
        "--papers", type=Path, metavar="FOLDER", help="fetch papers of Debian's packages into it (60 MB)"
    )
    parser.add_argument("--least", type=int, default=2000, help="shorter documents, in tokens, are left out (2000)")
    parser.add_argument("--answers", type=int, default=5, help="how many documents are learnt from (5)")
    parser.add_argument("--draws", type=int, default=200, help="how often they are drawn at random (200)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep what was counted, as the tests have it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [*given.paths, *(_papers(given.papers, Path(folder)) if given.papers else ())]
        if not paths:
            parser.error("name files or folders, or give --papers FOLDER")
        texts = asyncio.run(_read(paths))
    with llama_servers(1, 4096) as [server]:
        found = [_counted(server.port, name, text) for name, text in texts.items()]
    documents = [each for each in found if each.counts[0] >= given.least]
    if len(documents) <= given.answers:
        parser.error(
            f"{len(documents)} documents of {given.least} tokens or more: more than {given.answers} are needed"
        )
    if given.write:
        given.write.write_text(_kept(documents), encoding="utf-8")
    sizes = [each.counts[0] for each in documents]
    print(f"{len(documents)} documents of {min(sizes):,} to {max(sizes):,} tokens; shares of the true count")
    _show("before learning, upper", [most_tokens(each.prompts[0]) / each.counts[0] for each in documents])
    bounds = list(after_learning(documents, given.answers, given.draws))
    _show(f"after {given.answers} answers, upper", [each.upper / count for each, count in bounds])
    _show(f"after {given.answers} answers, lower", [each.lower / count for each, count in bounds])
    _show(f"after {given.answers} answers, floor", [each.floor / count for each, count in bounds])
    beside = list(of_the_next_question(documents))
    _show("after one about it, upper", [each.upper / count for each, count in beside])
    _show("after one about it, lower", [each.lower / count for each, count in beside])


def after_learning(documents: Sequence[Document], answers: int, draws: int) -> Iterator[tuple[Bounds, int]]:
    """The bounds of a document's first prompt and its true count, for each that was not learnt from, in each draw."""
    for draw in range(draws):
        learnt = Random(draw).sample(documents, answers)
        factors = UNLEARNT
        for each in learnt:
            factors = factors.learnt(each.prompts[0], each.counts[0])
        for each in documents:
            if each not in learnt:
                yield factors.bounds(each.prompts[0]), each.counts[0]


def of_the_next_question(documents: Sequence[Document]) -> Iterator[tuple[Bounds, int]]:
    """The bounds and the true count of each other question, where the count of the first is known."""
    for each in documents:
        for asked, count in zip(each.asked[1:], each.counts[1:], strict=True):
            yield around(each.counts[0], *UNLEARNT.apart(each.asked[0], asked)), count


def _show(name: str, shares: Iterable[float]) -> None:
    ordered = sorted(shares)
    marks = [ordered[round(share * (len(ordered) - 1))] for share in (0, 0.05, 0.95, 1)]
    least, low, high, most = (f"{mark:.3f}" for mark in marks)
    below = sum(each < 1 for each in ordered)
    print(
        f"{name:28} least {least}, 5 % {low}, median {median(ordered):.3f}, 95 % {high}, most {most}; "
        f"{below:,} of {len(ordered):,} below the count"
    )


def _papers(folder: Path, unpacked: Path) -> list[Path]:
    """The papers that the tests read, and what other PDFs their packages have."""
    from tests.documents.test_real_papers import PAPERS, Shelf

    folder.mkdir(parents=True, exist_ok=True)
    shelf = Shelf(folder)
    found = []
    for package in sorted({paper.package for paper in PAPERS}):
        first = next(paper for paper in PAPERS if paper.package == package)
        shelf.get(package, first.path)
        for path in sorted((folder / package).rglob("*.pdf*")):
            inside = str(path.relative_to(folder / package))
            place = unpacked / f"{len(found):03}-{path.name.removesuffix('.gz')}"
            place.write_bytes(shelf.get(package, inside))
            found.append(place)
    return found


async def _read(paths: Sequence[Path]) -> dict[str, str]:
    """The texts of what can be read, without those that come twice."""
    texts: dict[str, str] = {}
    async with DocumentReader() as reader:
        for source in find_files(paths):
            document = await reader.read(source.path)
            if not document.problem and len(document.text) <= MOST_CHARACTERS and document.text not in texts.values():
                texts[source.name] = document.text
    return texts


def _counted(port: int, name: str, text: str) -> Document:
    system = render_system(text)
    questions = [render_question(template) for template in research().templates]
    return Document(
        name,
        tuple(map(makeup, questions)),
        tuple(makeup_of((system, question)) for question in questions),
        tuple(tokens_of(port, Prompt(system, question)) for question in questions),
    )


def _kept(documents: Sequence[Document]) -> str:
    """A list of JSON, with a document on each line."""
    lines = (json.dumps([each.name, *each[1:]], separators=(",", ":")) for each in documents)
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    main()
