"""What PDFium finds on a page: lines of characters, in the order they were drawn."""

import ctypes
from dataclasses import dataclass, replace
from math import hypot, pi
from statistics import median
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from distllm.documents.pdf.spaces import Glyph, respace

_LINE_ENDS = (10, 13)
HYPHEN = "\x02"
"""PDFium's mark for a hyphen that stands at a line's end because a word is split there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a page, in points from the page's lower left corner.

    `baseline` is the height at which its letters stand, `size` their type size. A line `aside` is no part
    of the running text: a running head, or what is written up the margin.
    """

    left: float
    bottom: float
    right: float
    top: float
    baseline: float
    size: float
    text: str
    aside: bool = False


def read_lines(page: pdfium.PdfPage) -> list[Line]:
    """Read the lines of a page as they were drawn; what is written up the margin comes last, aside.

    On a page that is mostly written up the margin (a table in landscape), everything is turned instead.
    """
    text_page = page.get_textpage()
    try:
        reader = _PageReader(text_page.raw)
        lines = reader.lines()
        upright = [line for line, turned in lines if not turned]
        sideways = [(line, turned) for line, turned in lines if turned]
        if len(sideways) > len(upright):
            turn = sideways[0][1]
            return [_turned(line, turn) for line, turned in lines if turned == turn]
        return upright + [replace(line, aside=True) for line, _ in sideways]
    finally:
        text_page.close()


def overlap(one: Line, other: Line) -> bool:
    """Say whether two lines stand over each other by more than half of the shorter one's width."""
    shared = min(one.right, other.right) - max(one.left, other.left)
    return shared > 0.5 * min(one.right - one.left, other.right - other.left)


class _PageReader:
    """Asks PDFium about the characters of one page, each known by its number on the page."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._edges = [ctypes.c_double() for _ in range(4)]
        self._point = [ctypes.c_double() for _ in range(2)]
        self._matrix = pdfium_c.FS_MATRIX()
        self._room = pdfium_c.FS_RECTF()

    def lines(self) -> list[tuple[Line, int]]:
        """Give each line with the quarter turns that its letters are turned by, anticlockwise."""
        handle, code_at = self._handle, pdfium_c.FPDFText_GetUnicode
        found: list[tuple[Line, int]] = []
        text: list[str] = []
        visible: list[int] = []

        def flush() -> None:
            if visible:
                found.append(self._line("".join(text), visible))
            text.clear()
            visible.clear()

        for number in range(pdfium_c.FPDFText_CountChars(handle)):
            code = code_at(handle, number)
            if code in _LINE_ENDS:
                flush()
                continue
            if code < 0x110000:
                text.append(chr(code))
                if code > 32:
                    visible.append(number)
            if code == ord(HYPHEN):
                flush()
        flush()
        return found

    def _line(self, text: str, visible: list[int]) -> tuple[Line, int]:
        # A line's first, middle and last character tell its box; its size is what two of them agree on.
        first, middle, last = visible[0], visible[len(visible) // 2], visible[-1]
        boxes = [self._box(first), self._box(last)]
        top = max(self._box(middle)[3], boxes[0][3], boxes[1][3])
        sample = (first, middle, last)
        size = round(median(self._size(number) for number in sample), 2)
        turns = self._turns(middle)
        if not turns and size:
            text = respace(text, self._glyphs(text, visible), size)
        line = Line(
            left=min(box[0] for box in boxes),
            bottom=min(box[1] for box in boxes),
            right=max(box[2] for box in boxes),
            top=top,
            baseline=median(self._origin(number)[1] for number in sample),
            size=size,
            text=text,
        )
        return line, turns

    def _glyphs(self, text: str, visible: list[int]) -> list[Glyph]:
        room, handle, box = self._room, self._handle, pdfium_c.FPDFText_GetLooseCharBox
        glyphs = []
        for character, number in zip((each for each in text if each > " "), visible, strict=True):
            box(handle, number, room)
            glyphs.append(Glyph(character, room.left, room.right))
        return glyphs

    def _box(self, number: int) -> tuple[float, float, float, float]:
        left, right, bottom, top = self._edges
        pdfium_c.FPDFText_GetCharBox(self._handle, number, left, right, bottom, top)
        return left.value, bottom.value, right.value, top.value

    def _origin(self, number: int) -> tuple[float, float]:
        across, up = self._point
        pdfium_c.FPDFText_GetCharOrigin(self._handle, number, across, up)
        return across.value, up.value

    def _size(self, number: int) -> float:
        size: float = pdfium_c.FPDFText_GetFontSize(self._handle, number)
        if pdfium_c.FPDFText_GetMatrix(self._handle, number, self._matrix):
            size *= hypot(self._matrix.c, self._matrix.d)
        return size

    def _turns(self, number: int) -> int:
        angle: float = pdfium_c.FPDFText_GetCharAngle(self._handle, number)
        return round(angle / (pi / 2)) % 4 if angle >= 0 else 0


def _turned(line: Line, turns: int) -> Line:
    """Turn a line that is written at `turns` quarters of a circle so that it can be read upright."""
    corners = [(line.left, line.bottom), (line.right, line.top)]
    for _ in range(turns):
        corners = [(up, -across) for across, up in corners]
    (x0, y0), (x1, y1) = corners
    bottom = min(y0, y1)
    return replace(line, left=min(x0, x1), right=max(x0, x1), bottom=bottom, top=max(y0, y1), baseline=bottom)
