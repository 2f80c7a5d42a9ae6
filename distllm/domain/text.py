"""Strangers' text, made fit to be shown: documents and answers may hold anything."""

import re

# The characters that a terminal obeys, that reorder the text around them, or that nobody sees (tags).
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_HALVES = re.compile(r"[\ud800-\udfff]")


def shown(text: str) -> str:
    """Text for people to see: line ends made one kind, and no control character but them and tabs.

    Half a surrogate pair, which cannot be written, is U+FFFD.
    """
    return _HALVES.sub("\ufffd", _OBEYED.sub("", text.replace("\r\n", "\n")))


def size_in_words(count: int) -> str:
    """A number of bytes as people say it."""
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"
