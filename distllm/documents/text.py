"""Plain text: which encoding it has, and when it is none."""

import codecs

from distllm.documents.extract import Extract, refuse
from distllm.documents.tidy import tidy

_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def decode(data: bytes, declared: str | None = None) -> str | None:
    """Decode `data` by its byte order mark, else as `declared`, else as UTF-8, else as Windows' Western code page.

    A text in UTF-8 with a few spoilt bytes stays UTF-8, with U+FFFD for these. None where the bytes are
    no text: they hold a NUL.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = data.decode(encoding, errors="replace")
            return None if "\0" in text else text
    if b"\0" in data:
        return None
    if declared is not None:
        return data.decode(declared, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="replace")
    spoilt = text.count("\ufffd")
    foreign = len(text) - len(text.encode("ascii", errors="ignore"))
    if spoilt * 10 < foreign:
        return text
    return data.decode("cp1252", errors="replace")


def extract_text(data: bytes) -> Extract:
    """Read a plain text; it has neither title nor pages."""
    text = decode(data)
    if text is None:
        return refuse("is binary, not a text")
    text = tidy(text)
    return Extract(text) if text else refuse("is empty")
