"""Writes small PDFs: what each test needs to have on its pages, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Some words at (x, y), in points from the page's lower left corner."""

    x: float
    y: float
    text: str
    size: float = 10


def column(x: float, top: float, lines: Sequence[str], size: float = 10, pitch: float = 12) -> list[Words]:
    """Set lines below each other."""
    return [Words(x, top - number * pitch, line, size) for number, line in enumerate(lines)]


def write_pdf(
    pages: Sequence[Sequence[Words]], title: str | None = None, locked: bool = False, lost_pages: int = 0
) -> bytes:
    """Make a PDF of these pages, in the order in which their words are drawn.

    `locked` asks for a password that nobody knows; `lost_pages` adds pages that the file does not have.
    """
    contents = [b"\n".join(_show(words) for words in page) for page in pages]
    return _assemble(contents, list(range(len(contents))), title, locked, lost_pages)


def write_raw_pdf(content: bytes, names: bytes = b"", compressed: bool = False) -> bytes:
    """Make a PDF of one page with this content; `names` are differences to the names of the font's glyphs."""
    return _assemble([content], [0], None, False, 0, names, b"/Filter /FlateDecode" if compressed else b"")


def write_slow_pdf(pages: int) -> bytes:
    """Make a small PDF that takes some 20 ms for each of its pages."""
    words = [f"line {number} has many words that take their time" for number in range(300)]
    lines = [_show(line) for line in column(40, 800, words, size=2, pitch=2.5)]
    return _assemble([b"\n".join(lines)], [0] * pages, None, False, 0)


def _show(words: Words) -> bytes:
    text = words.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252")
    return b"BT /F1 %g Tf %g %g Td (%s) Tj ET" % (words.size, words.x, words.y, text)


def _assemble(
    contents: Sequence[bytes],
    used: Sequence[int],
    title: str | None,
    locked: bool,
    lost_pages: int,
    names: bytes = b"",
    coding: bytes = b"",
) -> bytes:
    first_page = 5 + len(contents)
    kids = [first_page + number for number in range(len(used) + lost_pages)]
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica"
        b" /Encoding << /BaseEncoding /WinAnsiEncoding /Differences [%s] >> >>" % names,
        b"<< /Title (%s) >>" % (title or "").encode("cp1252"),
        *(b"<< /Length %d %s >> stream\n%s\nendstream" % (len(content), coding, content) for content in contents),
        *(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (5 + number)
            for number in used
        ),
    ]
    ids = b""
    if locked:
        key = b"<" + b"5a" * 32 + b">"
        ids = b" /ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O %s /U %s >>" % (key, key)
    return write_objects(objects, b"/Info 4 0 R" + ids)


def write_objects(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """Make a PDF of these objects, numbered from 1, the first of which is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj %s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    out += b"trailer << /Root 1 0 R /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return bytes(out)
