"""Files made to harm: what they cost is measured, and they reach nothing beyond themselves."""

import asyncio
import json
import subprocess
import sys
import textwrap
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader
from tests.documents.listening import listening
from tests.documents.pdf_writer import Words, write_objects, write_pdf, write_raw_pdf

Save = Callable[[str, bytes], Path]

MEMORY = 300 << 20
"""What a child may take here, in bytes."""

READ = """
import asyncio, json, resource, sys
from pathlib import Path
from distllm.documents import DocumentReader

async def main():
    memory, *paths = sys.argv[1:]
    async with DocumentReader(children=1, memory=int(memory), seconds=20, seconds_per_megabyte=0) as reader:
        problems = {Path(path).name: (await reader.read(Path(path))).problem for path in paths}
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps([problems, used if sys.platform == "darwin" else 1024 * used]))

asyncio.run(main())
"""


def packed(content: bytes, times: int) -> bytes:
    """Some hundred megabytes, of which a hundredth is stored."""
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(content) for _ in range(times)), packer.flush()])


CATALOGUE = b"<< /Type /Catalog /Pages 2 0 R >>"
EMPTY_PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
TOO_MUCH = "GiB of memory"

# Each with what is said of it.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "blanks.pdf": (lambda: write_raw_pdf(packed(b" " * 1_000_000, 300), compressed=True), TOO_MUCH),
    "marks.pdf": (lambda: write_raw_pdf(packed(b"q Q " * 250_000, 300), compressed=True), TOO_MUCH),
    "words.pdf": (
        lambda: write_raw_pdf(packed(b"BT /F1 9 Tf 9 9 Td (many words) Tj ET " * 20_000, 40), compressed=True),
        TOO_MUCH,
    ),
    "objects.pdf": (
        lambda: write_objects(
            [
                CATALOGUE,
                b"<< /Type /Pages /Count 9 /Kids [%s] >>" % b" ".join(b"%d 0 R" % n for n in range(3, 12)),
                *[EMPTY_PAGE] * 100_000,
            ]
        ),
        "has no text on its 9 pages",
    ),
    "pages.pdf": (
        lambda: write_objects(
            [
                CATALOGUE,
                b"<< /Type /Pages /Count 10000 /Kids [%s] >>" % b" ".join(b"%d 0 R" % n for n in range(3, 10_003)),
                *[EMPTY_PAGE] * 10_000,
            ]
        ),
        "has no text on its 10000 pages",
    ),
    "cycle.pdf": (
        lambda: write_objects([CATALOGUE, b"<< /Type /Pages /Count 90000 /Kids [2 0 R 2 0 R] >>"]),
        "none of its pages can be opened",
    ),
    "longer cycle.pdf": (
        lambda: write_objects(
            [
                CATALOGUE,
                b"<< /Type /Pages /Count 9 /Kids [3 0 R] >>",
                b"<< /Type /Pages /Parent 2 0 R /Count 9 /Kids [2 0 R] >>",
            ]
        ),
        "none of its pages can be opened",
    ),
    "count.pdf": (
        lambda: write_objects([CATALOGUE, b"<< /Type /Pages /Count 2000000000 /Kids [3 0 R] >>", EMPTY_PAGE]),
        "has no text on its 1 page",
    ),
    "arrays.pdf": (lambda: write_objects([CATALOGUE, b"[" * 1_000_000]), "broke the process that read it"),
    "nested.html": (lambda: b"<div>" * 10_000_000, "took"),
    "wide.html": (lambda: b"<p>x" * 12_000_000, ""),
    "cycle.tex": (lambda: rb"\input{cycle} \input{cycle} " * 100, ""),
}


def test_bombs_cost_little_time_and_no_more_memory_than_is_allowed(save: Save, tmp_path: Path) -> None:
    paths = [save(name, made()) for name, (made, _) in BOMBS.items()]
    paths.append(save("last.txt", b"The last one."))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ), str(MEMORY), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    problems, most = json.loads(done.stdout)
    for name, (_, words) in BOMBS.items():
        assert words in (problems[name] or ""), problems
    assert problems["last.txt"] is None
    # Where the system does not limit it, the watch looks every 20 ms, in which some more may come.
    assert most < 1.5 * MEMORY


async def test_what_a_file_names_is_neither_fetched_nor_opened(reader: DocumentReader, save: Save) -> None:
    secret = save("elsewhere/secret.txt", b"SECRET")
    async with listening() as (url, calls):
        for address in (url, secret.as_uri(), str(secret), "../elsewhere/secret.txt"):
            html = f"""
                <base href="{address}"><link rel=stylesheet href="{address}"><script src="{address}"></script>
                <meta http-equiv=refresh content="0;url={address}"><style>@import "{address}"</style>
                <p style="background:url({address})">Text. <img src="{address}" srcset="{address} 2x">
                <iframe src="{address}">x</iframe><object data="{address}">y</object><embed src="{address}">
                <!--#include virtual="{address}" --><svg><use href="{address}"/></svg></p>
            """
            entity = f'<!DOCTYPE html SYSTEM "{address}" [<!ENTITY s SYSTEM "{address}">]>'
            named = "".join(rf"\{command}{{{address}}} " for command in ("input", "include", "includegraphics"))
            action = b"<< /Type /Action /S /URI /URI (%s) >>" % address.encode()
            pdf = write_pdf([[Words(50, 700, "Text. " + "and more of the same, " * 5)]]).replace(
                b"<< /Type /Catalog ", b"<< /Type /Catalog /OpenAction %s " % action
            )
            for name, data in (
                ("in/a.html", html.encode()),
                ("in/a.xhtml", f'<?xml version="1.0"?>{entity}<html><p>Text. &s;'.encode()),
                ("in/a.md", f"Text. ![x]({address}) <img src='{address}'>".encode()),
                ("in/a.tex", rf"Text. {named} \input{{|cat {secret}}}".encode()),
                ("in/a.pdf", pdf),
            ):
                document = await reader.read(save(name, data))
                assert document.problem is None, name
                assert "Text." in document.text, name
                assert "SECRET" not in document.text, name
        assert calls == []
        # It would be seen.
        with pytest.raises(OSError):  # noqa: PT011 - it hangs up
            await asyncio.to_thread(urllib.request.urlopen, url, timeout=5)
        assert len(calls) == 1
