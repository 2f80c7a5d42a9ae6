"""Office formats and e-books: with the extra `formats`, and without it.

`uv run --group test --group formats pytest -m long tests/documents/test_reading_office.py` runs them all.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader, find_files
from distllm.documents.office import extract_office
from tests.documents.office_writer import SENTENCE, write_docx, write_epub, write_odt, write_pptx, write_rtf

Save = Callable[[str, bytes], Path]

WRITERS = {".docx": write_docx, ".epub": write_epub, ".odt": write_odt, ".pptx": write_pptx, ".rtf": write_rtf}


def test_without_the_extra_the_command_that_adds_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kreuzberg", None)
    problem = extract_office(write_docx(), ".docx").problem
    assert problem is not None
    assert problem.endswith("add it with: uv pip install kreuzberg")


def test_folders_are_searched_for_them(save: Save, tmp_path: Path) -> None:
    for suffix, write in WRITERS.items():
        save(f"paper{suffix}", write())
    assert [source.path.suffix for source in find_files([tmp_path])] == sorted(WRITERS)


@pytest.mark.long
@pytest.mark.parametrize("suffix", sorted(WRITERS))
async def test_a_document_is_read_by_its_suffix_and_by_its_bytes(
    reader: DocumentReader, save: Save, suffix: str
) -> None:
    pytest.importorskip("kreuzberg")
    named = await reader.read(save(f"paper{suffix}", WRITERS[suffix]()))
    assert named.problem is None
    assert "Trees" in named.text
    assert SENTENCE in named.text
    assert named.title == ("On trees" if suffix in (".epub", ".rtf") else None)
    assert (await reader.read(save("paper", WRITERS[suffix]()))).text == named.text


@pytest.mark.long
async def test_a_table_of_a_docx_keeps_its_rows(reader: DocumentReader, save: Save) -> None:
    pytest.importorskip("kreuzberg")
    assert "| oak | ash |" in (await reader.read(save("paper.docx", write_docx()))).text


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".docx", ".epub", ".odt", ".pptx"])
async def test_what_is_cut_off_says_so(reader: DocumentReader, save: Save, suffix: str) -> None:
    pytest.importorskip("kreuzberg")
    document = await reader.read(save(f"paper{suffix}", WRITERS[suffix]()[:300]))
    assert document.problem is not None
    assert document.problem.startswith(f"is no {suffix[1:].upper()}, or is damaged")
