"""Writes small real files of the office formats."""

import io
import zipfile

SENTENCE = "They cool a street by 2 K."

_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>'


def _zip(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _relation(kind: str, target: str) -> str:
    return (
        f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/{kind}" Target="{target}"/></Relationships>'
    )


def write_docx() -> bytes:
    """A heading, a sentence, and a table."""
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    body = (
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
        '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Trees</w:t></w:r></w:p>'
        f"<w:p><w:r><w:t>{SENTENCE}</w:t></w:r></w:p>"
        f"<w:tbl><w:tr>{cell.format('oak')}{cell.format('ash')}</w:tr></w:tbl></w:body></w:document>"
    )
    relations = _relation("officeDocument", "word/document.xml")
    return _zip(**{"[Content_Types].xml": _TYPES, "_rels/.rels": relations, "word/document.xml": body})


def write_pptx() -> bytes:
    """One slide."""
    names = (
        'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
        f'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" xmlns:r="{_OFFICE}"'
    )
    shape = "<p:sp><p:txBody><a:p><a:r><a:t>{}</a:t></a:r></a:p></p:txBody></p:sp>"
    slide = (
        f"<p:sld {names}><p:cSld><p:spTree>{shape.format('Trees')}{shape.format(SENTENCE)}</p:spTree></p:cSld></p:sld>"
    )
    slides = f'<p:presentation {names}><p:sldIdLst><p:sldId id="256" r:id="rId1"/></p:sldIdLst></p:presentation>'
    return _zip(
        **{
            "[Content_Types].xml": _TYPES,
            "_rels/.rels": _relation("officeDocument", "ppt/presentation.xml"),
            "ppt/presentation.xml": slides,
            "ppt/_rels/presentation.xml.rels": _relation("slide", "slides/slide1.xml"),
            "ppt/slides/slide1.xml": slide,
        }
    )


def write_odt() -> bytes:
    """A heading and a sentence."""
    urn = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'<office:document-content xmlns:office="{urn}:office:1.0" xmlns:text="{urn}:text:1.0">'
        "<office:body><office:text>"
        f'<text:h text:outline-level="1">Trees</text:h><text:p>{SENTENCE}</text:p>'
        "</office:text></office:body></office:document-content>"
    )
    return _zip(**{"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def write_epub() -> bytes:
    """One chapter, and a title."""
    return _zip(
        **{
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": (
                '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
                '<rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
            ),
            "c.opf": (
                '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
                '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>On trees</dc:title></metadata>'
                '<manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
                '<spine><itemref idref="a"/></spine></package>'
            ),
            "a.xhtml": f'<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Trees</h1><p>{SENTENCE}</p></body></html>',
        }
    )


def write_rtf() -> bytes:
    """A sentence, and a title."""
    return rb"{\rtf1\ansi{\info{\title On trees}}{\b Trees}\par " + SENTENCE.encode() + rb"\par}"
