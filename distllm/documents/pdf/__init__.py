"""PDF to text: lines with boxes, their order, the characters cleaned, paragraphs, a title.

    lines       what PDFium finds on a page, as lines with boxes, in the order they were drawn
    spaces      the spaces of a line, by the white between its letters
    dingbats    letters of bitmap fonts that PDFium takes for dingbats
    order       the same lines in the order to read them
    clean       characters as people write them; words that a line's end has split
    heads       running heads and page numbers
    paragraphs  lines to text
    title       what the paper calls itself

Imported by child processes alone: PDFium is not safe for threads, and some files crash it.
"""

from dataclasses import replace

import pypdfium2 as pdfium

from distllm.documents.extract import Extract, refuse
from distllm.documents.pdf.clean import Hyphens, clean_characters
from distllm.documents.pdf.dingbats import decipher
from distllm.documents.pdf.heads import set_heads_aside
from distllm.documents.pdf.lines import Line, read_lines
from distllm.documents.pdf.order import reading_order
from distllm.documents.pdf.paragraphs import compose
from distllm.documents.pdf.title import choose_title
from distllm.documents.tidy import tidy

_PASSWORD = 4
_FEWEST_CHARACTERS_A_PAGE = 50


def extract_pdf(data: bytes) -> Extract:
    """Read a PDF. Pages that cannot be opened are left out as long as there are others; the text's end says so."""
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if error.err_code == _PASSWORD:
            return refuse("is protected by a password")
        return refuse("is not a PDF, or is damaged")
    try:
        count = len(document)
        pages, lost = _read_pages(document)
        stated = document.get_metadata_dict().get("Title", "")
    finally:
        document.close()
    if not pages:
        return refuse("is not a PDF, or is damaged: none of its pages can be opened", count)
    on_pages = "1 page" if count == 1 else f"{count} pages"
    seen = sum(len(line.text) for page in pages for line in page)
    if seen < _FEWEST_CHARACTERS_A_PAGE * len(pages):
        amount = "hardly any text" if seen else "no text"
        return refuse(f"has {amount} on its {on_pages}: it is probably a scan; run it through OCR first", count)
    pages = set_heads_aside(pages)
    text = tidy(compose(pages, Hyphens(line.text for page in pages for line in page)))
    if lost:
        numbers = ", ".join(map(str, lost))
        text += f"\n\n[Of the file's {count} pages, {numbers} could not be opened: what stands there is missing here.]"
    return Extract(text, choose_title(stated, pages[0]), count)


def _read_pages(document: pdfium.PdfDocument) -> tuple[list[list[Line]], list[int]]:
    """Read the pages that can be opened, each as its lines in reading order; and tell the numbers of the others."""
    pages = []
    lost = []
    for number in range(len(document)):
        try:
            page = document[number]
        except pdfium.PdfiumError:
            lost.append(number + 1)
            continue
        try:
            lines = reading_order(read_lines(page))
        except pdfium.PdfiumError:
            lost.append(number + 1)
            continue
        finally:
            page.close()
        texts = decipher(line.text for line in lines)
        cleaned = (replace(line, text=clean_characters(text)) for line, text in zip(lines, texts, strict=True))
        pages.append([line for line in cleaned if line.text])
    return pages, lost
