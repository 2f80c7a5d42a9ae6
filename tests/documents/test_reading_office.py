"""Office formats and e-books: with the extra `formats`, and without it.

`uv run --group test --group formats pytest -m long tests/documents/test_reading_office.py` runs them all.
"""

import io
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from distllm.documents import DocumentReader, find_files
from distllm.documents.office import extract_office
from tests.documents.listening import listening
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


def zipped(parts: Mapping[str, bytes]) -> bytes:
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.long
async def test_a_docx_that_unpacks_to_gigabytes_is_given_up(save: Save) -> None:
    pytest.importorskip("kreuzberg")
    packed = io.BytesIO(write_docx())
    with zipfile.ZipFile(packed) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    text = parts["word/document.xml"].replace(SENTENCE.encode(), b"%b" + SENTENCE.encode())
    before, _, after = text.partition(b"%b")
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in set(parts) - {"word/document.xml"}:
            archive.writestr(name, parts[name])
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            part.write(before)
            for _ in range(2000):
                part.write(b"x" * 1_000_000)
            part.write(after)
    assert len(packed.getvalue()) < 3_000_000
    path = save("bomb.docx", packed.getvalue())
    del packed
    async with DocumentReader(children=1, memory=700 << 20, seconds=20) as reader:
        document = await reader.read(path)
        assert document.problem is not None
        assert (await reader.read(save("next.docx", write_docx()))).problem is None


@pytest.mark.long
async def test_a_docx_fetches_nothing_and_reads_no_other_file(reader: DocumentReader, save: Save) -> None:
    pytest.importorskip("kreuzberg")
    secret = save("secret.txt", b"SECRET")
    entity = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY s SYSTEM "{secret.as_uri()}">]>'.encode()
    async with listening() as (url, calls):
        links = "".join(
            f'<Relationship Id="r{kind}" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}"'
            f' Target="{target}" TargetMode="External"/>'
            for target in (url, secret.as_uri())
            for kind in ("attachedTemplate", "image", "subDocument", "oleObject")
        )
        relations = f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{links}'
        with zipfile.ZipFile(io.BytesIO(write_docx())) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts["word/_rels/document.xml.rels"] = (relations + "</Relationships>").encode()
        parts["word/_rels/settings.xml.rels"] = parts["word/_rels/document.xml.rels"]
        linked = await reader.read(save("linked.docx", zipped(parts)))
        parts["word/document.xml"] = entity + parts["word/document.xml"].replace(b"oak", b"oak &s;")
        named = await reader.read(save("named.docx", zipped(parts)))
    assert SENTENCE in linked.text
    assert "SECRET" not in linked.text + named.text
    assert calls == []
