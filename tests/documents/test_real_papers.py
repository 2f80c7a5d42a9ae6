"""Papers as they are: fetched from Debian's packages, read, and asked about.

uv run --group test pytest -m long tests/documents/test_real_papers.py
"""

import re
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pypdfium2 as pdfium
import pytest

from distllm.documents import DocumentReader
from distllm.documents.pdf.clean import clean_characters
from distllm.documents.splitting import Span, split
from distllm.domain.models import Document
from distllm.domain.tokens import estimate_tokens
from tests.cli.conftest import Cli
from tests.documents.canaries import BUDGETS, facts, missing, planted
from tests.documents.pdf_writer import write_raw_pdf
from tests.documents.real_papers import PAPERS, Paper, Shelf
from tests.fakes.server import FakeServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


SCAN = ("libaudiomask-dev", "usr/share/doc/libaudiomask-dev/Flax.2000.Improved.Auditory.Masking.Models.pdf.gz")
HEADED_SCAN = ("atlc", "usr/share/doc/atlc/qex_december_1996/atlc.pdf.gz")
_TESTS = "usr/share/doc/r-cran-pdftools/tests/testthat"
LOCKED = ("r-cran-pdftools", f"{_TESTS}/pdf-example-password.original.pdf.gz")
OWNED = ("r-cran-pdftools", f"{_TESTS}/pdf-example-encryption.original.pdf.gz")
UNLISTED = {"dtc-paper.pdf", "genetics_article.pdf"}
"""They have no list of references."""

DOCUMENTS = "SELECT name, problem, text FROM job_documents JOIN documents ON documents.id = document_id"
# The same glyph names as Zapf's dingbats have.
BITMAP_FONTS = ("r-cran-lme4", "usr/lib/R/site-library/lme4/doc/PLSvGLS.pdf")


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """The command, in a folder of its own."""
    (tmp_path / "home").mkdir()
    runner = Cli(tmp_path)
    yield runner
    for process in runner.processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def read(reader: DocumentReader, folder: Path, data: bytes) -> Document:
    path = folder / "paper.pdf"
    path.write_bytes(data)
    return await reader.read(path)


def flat(text: str) -> str:
    return " ".join(text.split())


def letters(text: str) -> str:
    return re.sub("[^a-z]", "", text.lower())


def raw_text(data: bytes) -> str:
    """All that PDFium finds, less the lines that return on page after page."""
    with pdfium.PdfDocument(data) as opened:
        pages = [page.get_textpage().get_text_range().replace("\ufffe", "\x02").split("\r\n") for page in opened]
    uses = Counter(re.sub(r"\d+", "#", line) for page in pages for line in page)
    heads = {line for line, count in uses.items() if count >= 3 and len(line) >= 20}
    return "\n".join(line for page in pages for line in page if re.sub(r"\d+", "#", line) not in heads)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
async def test_a_paper_comes_out_as_a_person_reads_it(
    paper: Paper, shelf: Shelf, reader: DocumentReader, tmp_path: Path
) -> None:
    document = await read(reader, tmp_path, shelf.get(paper.package, paper.path))
    assert document.problem is None
    assert (document.pages, document.title) == (paper.pages, paper.title)
    text = flat(document.text)
    assert [sentence for sentence in paper.sentences if sentence not in text] == []
    assert 0.95 <= estimate_tokens(document.text) / paper.tokens <= 1.2


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
async def test_nothing_of_a_paper_is_lost(paper: Paper, shelf: Shelf, reader: DocumentReader, tmp_path: Path) -> None:
    data = shelf.get(paper.package, paper.path)
    raw = clean_characters(raw_text(data))
    ours = letters((await read(reader, tmp_path, data)).text)
    assert 0.985 <= len(ours) / len(letters(raw)) <= 1.06
    words = re.findall(r"[A-Za-z]{4,}", re.sub(r"[\x02-]\n", "", raw))
    lost = [word for word in words if word.lower() not in ours]
    assert len(lost) <= 0.003 * len(words), lost


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
async def test_a_fact_put_anywhere_into_a_paper_lies_whole_in_one_part(
    paper: Paper, shelf: Shelf, reader: DocumentReader, tmp_path: Path
) -> None:
    text = (await read(reader, tmp_path, shelf.get(paper.package, paper.path))).text
    for budget in BUDGETS:
        rng = Random(f"{paper.name} {budget}")
        known = facts(rng, 100)
        assert missing(planted(text, known, rng), known, budget) == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
async def test_a_paper_is_split_into_few_parts_that_are_well_filled(
    paper: Paper, shelf: Shelf, reader: DocumentReader, tmp_path: Path
) -> None:
    text = (await read(reader, tmp_path, shelf.get(paper.package, paper.path))).text
    for budget in (600, 1500, 3000):
        parts = [text[span.first : span.last] for span in split(text, budget, estimate_tokens)]
        sizes = [estimate_tokens(part) for part in parts]
        assert max(sizes) <= budget
        assert len(sizes) <= 1.15 * estimate_tokens(text) / budget + 1
        assert min(sizes) >= 0.35 * budget


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
async def test_the_references_of_a_paper_are_left_out_and_nothing_else(
    paper: Paper, shelf: Shelf, reader: DocumentReader, tmp_path: Path
) -> None:
    text = (await read(reader, tmp_path, shelf.get(paper.package, paper.path))).text
    kept = split(text, 1_000_000, estimate_tokens, references=False)
    lost = [text[here.last : after.first] for here, after in pairwise([Span(0, 0), *kept, Span(len(text), len(text))])]
    lost = [each.strip() for each in lost if each.strip()]
    assert len(lost) == (0 if paper.name in UNLISTED else 1), lost
    for each in lost:
        assert re.match(r"[\dIVX. ]*(References|Bibliography)\n", each, re.IGNORECASE)
        assert not re.search(r"\n(Introduction|Abstract|Conclusions?|Acknowledge?ments|Appendix)\b", each)


async def test_letters_that_come_as_dingbats_are_read(shelf: Shelf, reader: DocumentReader, tmp_path: Path) -> None:
    document = await read(reader, tmp_path, shelf.get(*BITMAP_FONTS))
    text = flat(document.text)
    assert "The methods in the lme4 package for R for fitting linear mixed models are based on sparse matrix" in text
    assert "Both T and S are highly patterned." in text
    assert document.title is not None
    assert document.title.startswith("Penalized least squares versus generalized least squares")


async def test_what_cannot_be_read_has_its_own_reason_and_the_others_go_on(shelf: Shelf, cli: Cli) -> None:
    good = PAPERS[0]
    whole = shelf.get(good.package, good.path)
    bomb = zlib.compress(bytes(10**9), 9)
    files = {
        "good.pdf": whole,
        "owned.pdf": shelf.get(*OWNED),
        "scan.pdf": shelf.get(*SCAN),
        "headed-scan.pdf": shelf.get(*HEADED_SCAN),
        "locked.pdf": shelf.get(*LOCKED),
        "cut.pdf": whole[: len(whole) // 2],
        "holed.pdf": whole[: len(whole) // 3] + bytes(len(whole) // 3) + whole[2 * len(whole) // 3 :],
        "bomb.pdf": write_raw_pdf(bomb, compressed=True),
        "empty.pdf": b"",
        "page.pdf": b"<html><body><p>This was saved under a wrong name.</p></body></html>",
    }
    for name, data in files.items():
        (cli.folder / "papers").mkdir(exist_ok=True)
        (cli.folder / "papers" / name).write_bytes(data)
    async with FakeServer(context=100_000) as server:
        cli.use(server)
        done = await cli.run("submit", "papers", "--prompt", "What is this about?", seconds=300)
    assert done.code == 3, done.err
    found = {name: (problem, text) for name, problem, text in cli.rows(DOCUMENTS)}
    for name in ("good.pdf", "owned.pdf", "holed.pdf"):
        assert found[name][0] is None
    assert found["holed.pdf"][1].endswith("could not be opened: what stands there is missing here.]")
    assert {name: problem for name, (problem, _) in found.items() if problem} == {
        "scan.pdf": "has no text on its 6 pages: it is probably a scan; run it through OCR first",
        "headed-scan.pdf": "has hardly any text on its 9 pages: it is probably a scan; run it through OCR first",
        "locked.pdf": "is protected by a password",
        "cut.pdf": "is not a PDF, or is damaged",
        "bomb.pdf": "broke the process that read it: it is damaged, or takes more than 2 GiB of memory",
        "empty.pdf": "is empty",
        "page.pdf": "is not a PDF, or is damaged",
    }
    assert all(f"not read: {name}: {problem}" in done.out for name, (problem, _) in found.items() if problem)
    assert cli.rows("SELECT document FROM answers ORDER BY 1") == [("good.pdf",), ("holed.pdf",), ("owned.pdf",)]


async def test_a_shelf_of_papers_goes_through_a_whole_job(shelf: Shelf, cli: Cli) -> None:
    (cli.folder / "papers").mkdir()
    for paper in PAPERS:
        (cli.folder / "papers" / paper.name).write_bytes(shelf.get(paper.package, paper.path))
    async with FakeServer(context=100_000, slots=2) as server:
        cli.use(server)
        done = await cli.run("submit", "papers", "--preset", "summary", seconds=300)
        assert done.code == 0, done.err
        asked = Counter(seen.system for seen in server.requests)
    assert len(asked) == len(PAPERS)
    assert set(asked.values()) == {3}
    texts = dict(cli.rows("SELECT title, text FROM documents"))
    for paper in PAPERS:
        assert any(texts[paper.title] in system for system in asked)
    rows = cli.rows("SELECT document, title, count(*), min(proof) FROM answers GROUP BY document, title")
    assert sorted(rows) == sorted((paper.name, paper.title, 3, "proven") for paper in PAPERS)
